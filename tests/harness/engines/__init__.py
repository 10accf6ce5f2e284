"""Third-party engines as child processes: NATS, Valkey, ClickHouse, Prometheus, S3."""
