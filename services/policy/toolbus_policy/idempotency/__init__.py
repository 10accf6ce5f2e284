"""Idempotency keys: claims, and replays of outcomes."""
