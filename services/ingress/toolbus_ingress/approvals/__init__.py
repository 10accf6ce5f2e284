"""The approval page and its API."""
