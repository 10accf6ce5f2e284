"""MCP server for tests without an SDK: both protocol families, every feature."""
