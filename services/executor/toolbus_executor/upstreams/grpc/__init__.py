"""gRPC servers as upstreams: tools from server reflection; needs the extra `grpc`."""
