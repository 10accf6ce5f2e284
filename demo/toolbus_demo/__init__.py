"""Two small MCP servers for a first look at Toolbus: `clock` over stdio, `notes` over HTTP."""
