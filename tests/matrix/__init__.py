"""Third-party clients against servers of every family through one gateway."""
