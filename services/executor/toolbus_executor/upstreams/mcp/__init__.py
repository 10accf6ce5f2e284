"""Upstreams for MCP servers over HTTP, HTTP+SSE and stdio."""
