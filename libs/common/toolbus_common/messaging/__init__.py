"""Messages between services: calls, requests, events and their outbox."""
