"""MCP requests: parsing, validation, routing, calls to policy, responses."""
