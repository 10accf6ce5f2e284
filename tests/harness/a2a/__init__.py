"""Agents and clients of A2A, by its official SDK."""
