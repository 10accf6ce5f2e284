"""Share MCP details between services: URIs, headers, forms of results."""
