"""Arguments and structured results held against the schemas their server declares."""

from toolbus_executor.validation.checks import Checks

__all__ = ["Checks"]
