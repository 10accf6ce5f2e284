"""People in facts: each has a key of their own, and whoever loses it is forgotten."""
