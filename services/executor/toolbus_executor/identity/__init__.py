"""Signed caller identity for upstream servers: claims, keys and header."""
