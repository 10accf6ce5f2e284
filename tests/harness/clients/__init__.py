"""Clients of a gateway: MCP, administration, browsers, operators."""
