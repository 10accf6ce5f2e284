"""Share what several services need about one call: outcome, idempotency key, event fields."""
