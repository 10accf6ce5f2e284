"""Keep state between requests: sessions, event logs for resumption, notifications."""
