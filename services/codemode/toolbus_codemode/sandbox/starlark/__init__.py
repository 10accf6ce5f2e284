"""Run programs in Starlark."""
