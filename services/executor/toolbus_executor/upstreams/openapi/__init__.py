"""Upstreams for HTTP APIs. Arguments become requests, and responses become results."""
