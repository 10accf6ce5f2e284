"""Wrap the NATS client: connection, streams, buckets, topology, permissions."""
