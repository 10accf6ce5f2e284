"""The pages of recorded events: analytics."""
