"""Messages between services: calls, queries, events and their outbox."""
