"""Consume events, and write them as rows and roll-ups."""
