"""Token counts and context cost."""
