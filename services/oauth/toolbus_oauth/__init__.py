"""The oauth service."""
