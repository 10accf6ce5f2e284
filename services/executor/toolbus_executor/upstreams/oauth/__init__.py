"""Upstreams that require OAuth tokens: one shared token, or one token per user."""
