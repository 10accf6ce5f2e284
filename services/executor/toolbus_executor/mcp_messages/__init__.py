"""Build and read MCP messages. Pure: no I/O."""
