"""Validation of arguments and structured results against the tools' schemas."""

from toolbus_executor.validation.validator import Checks, checks_of, reads_output_schemas

__all__ = ["Checks", "checks_of", "reads_output_schemas"]
