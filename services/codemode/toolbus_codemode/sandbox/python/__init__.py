"""Run programs in a subset of Python."""
