"""Serve the approval page and its API."""
