"""Manage the life of a configured server: supervisor, lease, idle shutdown, commands."""
