"""Keep read models of events that other services query."""
