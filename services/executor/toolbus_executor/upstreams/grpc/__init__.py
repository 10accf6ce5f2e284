"""Upstreams that speak gRPC: tools from server reflection; needs the extra `grpc`."""
