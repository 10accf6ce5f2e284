"""Administration over HTTP: operations, roles, and the models of requests and responses."""
