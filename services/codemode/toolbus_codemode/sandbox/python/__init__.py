"""Python engine, for a subset of the language."""
