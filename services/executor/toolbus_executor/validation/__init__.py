"""Arguments and structured results held against the schemas their server declares."""

from toolbus_executor.validation.validator import Checks, checks_of

__all__ = ["Checks", "checks_of"]
