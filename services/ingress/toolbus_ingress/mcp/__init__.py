"""Answer MCP requests: parse, validate, route, hand calls to policy, write the response."""
