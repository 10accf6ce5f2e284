"""The NATS client: connection, streams, buckets, topology, permissions."""
