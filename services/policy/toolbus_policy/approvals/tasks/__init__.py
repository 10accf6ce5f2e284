"""Offer calls that wait for an approval as MCP tasks."""
