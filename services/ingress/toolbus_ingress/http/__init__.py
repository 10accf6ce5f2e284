"""HTTP without MCP: the listener, the request guard, JSON-RPC responses."""
