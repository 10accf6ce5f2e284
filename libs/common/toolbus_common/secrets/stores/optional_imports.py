"""Import the libraries of stores, which are optional dependencies."""

from importlib import import_module
from typing import Any

from toolbus_common.secrets.references import SecretError


def library(name: str, extra: str) -> Any:
    """Import a library by name. Raises `SecretError` with what to install."""
    try:
        return import_module(name)
    except ImportError as error:
        raise SecretError(
            f"Secrets of this store need {error.name}: pip install 'toolbus[{extra}]' where this "
            "service runs."
        ) from error
