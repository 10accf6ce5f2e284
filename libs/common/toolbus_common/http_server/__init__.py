"""The HTTP server of every listener: limited connections, complete requests, graceful shutdown."""
