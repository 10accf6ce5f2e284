"""Starlark engine of the sandbox."""
