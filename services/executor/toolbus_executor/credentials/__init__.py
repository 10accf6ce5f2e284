"""Upstream OAuth: access tokens of calls, and the reply to a caller without consent."""
