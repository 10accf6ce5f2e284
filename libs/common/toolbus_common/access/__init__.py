"""Access to tools: principals, grants, scopes, prices, tool names."""
