"""The HTTP server of every listener: bounded connections, whole requests, graceful shutdown."""
