"""Import of the libraries of clouds, which are optional dependencies."""

from importlib import import_module
from typing import Any

from toolbus_common.errors import UpstreamDeadError


def library(name: str, extra: str) -> Any:
    """Return an imported library. Raises `UpstreamDeadError`, which names the missing extra."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UpstreamDeadError(
            f"This kind of provider needs {error.name}: pip install 'toolbus[{extra}]' where the "
            "executor runs.",
            sent=False,
        ) from error
