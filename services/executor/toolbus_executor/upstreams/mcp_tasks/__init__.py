"""MCP tasks, converted between protocol families."""
