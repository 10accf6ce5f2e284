"""Commands, grouped by area."""
