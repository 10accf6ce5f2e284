"""MCP servers that tests declare as upstreams."""
