"""Encrypted records in NATS buckets, and the HTTP client."""
