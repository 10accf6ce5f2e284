"""Entries from an MCP registry, and the addition of an entry to a configuration."""
