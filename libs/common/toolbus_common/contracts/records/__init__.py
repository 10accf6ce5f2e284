"""Records of NATS buckets."""
