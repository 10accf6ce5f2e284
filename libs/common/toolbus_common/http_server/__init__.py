"""The HTTP server of every listener: bounded connections, whole requests, and an orderly end."""
