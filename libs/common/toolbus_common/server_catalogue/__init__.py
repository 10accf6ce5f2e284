"""Entries for widely used MCP servers, and the configuration of a server from an entry."""
