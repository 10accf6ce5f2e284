"""State between requests: sessions, event logs for resumption, event streams."""
