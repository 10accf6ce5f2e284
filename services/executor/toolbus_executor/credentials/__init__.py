"""Upstream OAuth: access tokens for calls, and replies to callers whose user has not consented."""
