"""The process of a service: start, stop, health, HTTP server."""
