"""Store sealed records in NATS buckets."""
