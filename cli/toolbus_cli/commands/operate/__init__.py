"""Commands for configuration, status and running services."""
