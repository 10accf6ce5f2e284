"""Define requests between services and their responses."""
