"""Upstream OAuth: access tokens of calls, and the reply to a caller who has not consented yet."""
