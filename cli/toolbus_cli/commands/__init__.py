"""Commands, grouped by what they manage."""
