"""Define the records of NATS buckets."""
