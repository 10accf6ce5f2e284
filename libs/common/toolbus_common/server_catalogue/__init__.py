"""Ready entries for widely used MCP servers, and the configuration of a server made from one."""
