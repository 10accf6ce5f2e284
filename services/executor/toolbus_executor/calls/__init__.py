"""Execution of an admitted call, from its arrival to its outcome."""
