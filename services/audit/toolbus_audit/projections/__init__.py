"""Read models of events that other services query."""
