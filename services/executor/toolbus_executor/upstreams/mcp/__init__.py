"""MCP servers over HTTP, SSE and stdio."""
