"""Upstreams that are processes: Python functions as tools, and the status of isolation."""
