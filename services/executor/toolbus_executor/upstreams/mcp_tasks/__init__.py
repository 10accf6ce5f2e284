"""Bridge MCP tasks between protocol families."""
