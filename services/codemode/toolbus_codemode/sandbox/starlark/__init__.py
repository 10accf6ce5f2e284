"""Starlark engine."""
