"""Properties of a call that several services use: outcome, idempotency key, event fields."""
