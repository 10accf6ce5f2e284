"""Run a service process: start and stop, health, its HTTP server."""
