"""Guards: checks of the content of calls."""
