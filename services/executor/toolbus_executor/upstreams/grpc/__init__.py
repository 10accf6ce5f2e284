"""Upstreams for gRPC servers. Tools come from server reflection. Requires the extra `grpc`."""
