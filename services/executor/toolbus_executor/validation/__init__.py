"""Validation of arguments and structured results against the schemas of their server."""

from toolbus_executor.validation.validator import Checks, checks_of

__all__ = ["Checks", "checks_of"]
