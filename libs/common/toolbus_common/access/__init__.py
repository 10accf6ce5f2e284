"""Know who may call what: principals, grants, scopes, prices, tool names."""
