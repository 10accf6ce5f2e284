"""The oauth room."""
