"""Servers that are called with OAuth tokens: a shared one, or one per user."""
