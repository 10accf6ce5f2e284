"""Configurations with which MCP clients (Claude, Cursor, VS Code and others) use the gateway."""
