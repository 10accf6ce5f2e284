"""Information flow: the labels of tools and the decision about a combination (no I/O)."""
