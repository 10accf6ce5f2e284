"""Executor service: calls upstream servers and publishes their catalogue."""
