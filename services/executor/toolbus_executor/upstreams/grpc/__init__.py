"""Serve gRPC servers as upstreams: reflection gives the tools; needs the extra `grpc`."""
