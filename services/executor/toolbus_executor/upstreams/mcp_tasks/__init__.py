"""MCP tasks between protocol families."""
