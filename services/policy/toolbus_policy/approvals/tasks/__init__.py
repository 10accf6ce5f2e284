"""Calls that wait for an approval, as MCP tasks."""
