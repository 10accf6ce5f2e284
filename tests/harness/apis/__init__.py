"""REST, GraphQL and gRPC servers that tests declare as upstreams."""
