"""Details of MCP that several services share: URIs, headers, forms of results."""
