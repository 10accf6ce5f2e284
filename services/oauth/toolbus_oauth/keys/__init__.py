"""Manage signing keys, and parse tokens that are not verified yet."""
