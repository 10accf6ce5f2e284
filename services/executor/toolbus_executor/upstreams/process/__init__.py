"""Serve Python functions as tools, and report how a server's process is isolated."""
