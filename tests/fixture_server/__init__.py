"""An MCP server of our own for tests: both eras, every feature, no SDK."""
