"""Isolation of a server's process: visible files, network, limits and complete termination."""
