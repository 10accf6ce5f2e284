"""Builders and parsers of MCP messages, without I/O."""
