"""Requests between services, and their responses."""
