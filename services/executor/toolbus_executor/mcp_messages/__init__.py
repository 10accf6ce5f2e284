"""Builders and parsers of MCP messages. Pure: no I/O."""
