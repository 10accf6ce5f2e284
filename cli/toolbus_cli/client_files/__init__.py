"""Insertion of the gateway into the configuration files of MCP clients."""
