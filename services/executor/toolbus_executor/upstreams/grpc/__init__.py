"""A gRPC server as an upstream: what it reflects is its list of tools; needs the extra `grpc`."""
