"""Serve HTTP: the listener's application, the request guard, CORS, and JSON-RPC responses."""
