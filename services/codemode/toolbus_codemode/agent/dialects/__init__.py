"""Conversations and responses of a run in the form of each API for models (no I/O)."""
