"""The state of an installation: services, servers, buckets, stream of events, failed guards."""
