"""Clients of the services, used by commands."""
