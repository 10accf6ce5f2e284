"""Information flow: the labels of tools (no I/O)."""
