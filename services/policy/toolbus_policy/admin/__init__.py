"""Serve administration over HTTP: check the caller's role, then perform the operation."""
