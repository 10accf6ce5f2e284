"""Process of a service: start, stop, health and HTTP server."""
