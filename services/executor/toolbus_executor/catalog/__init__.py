"""Listing, pinning and publication of server definitions."""
