"""gRPC servers as upstreams: reflection gives the list of tools; needs the extra `grpc`."""
