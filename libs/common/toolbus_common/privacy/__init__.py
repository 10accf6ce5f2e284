"""People in events: each has a key of their own, and whoever loses it is forgotten."""
