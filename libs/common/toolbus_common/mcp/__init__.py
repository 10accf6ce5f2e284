"""MCP details that several services share: URIs, headers, forms of results."""
