"""Builders of configurations, tokens and calls for tests that need no service."""
