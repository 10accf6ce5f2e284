"""Saved queries of recorded events: SQL files with their descriptions and parameters."""
