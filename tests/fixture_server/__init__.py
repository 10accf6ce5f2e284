"""An MCP server of our own for tests: both families, every feature, no SDK."""
