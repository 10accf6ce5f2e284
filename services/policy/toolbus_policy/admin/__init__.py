"""Administration over HTTP: the check of the caller's role, and the operations."""
