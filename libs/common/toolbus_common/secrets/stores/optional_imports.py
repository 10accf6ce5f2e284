"""Import of the stores' libraries, which are optional dependencies."""

from importlib import import_module
from typing import Any

from toolbus_common.secrets.references import SecretError


def library(name: str, extra: str) -> Any:
    """Return an imported library.

    Raises `SecretError`; its message contains the package to install.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise SecretError(
            f"Secrets of this store need {error.name}: pip install 'toolbus[{extra}]' where this "
            "service runs."
        ) from error
