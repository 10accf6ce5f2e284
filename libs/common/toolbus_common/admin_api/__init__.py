"""Administration over HTTP: operations, the roles that may run them, requests and responses."""
