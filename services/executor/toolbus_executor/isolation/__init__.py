"""Holds a server's process: what it may see, reach and use up, and that nothing of it is left."""
