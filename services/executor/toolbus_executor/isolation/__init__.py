"""Isolation of a server's process: visible files, network access, limits, and termination."""
