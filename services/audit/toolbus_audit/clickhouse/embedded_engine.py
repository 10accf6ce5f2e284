"""The embedded engine, imported without pyarrow, and only where audit has no ClickHouse server.

The engine works without pyarrow, which it needs for data frames only. The import of pyarrow and
numpy would take 37 MB, and a third of the time to import the modules of audit. The import of the
engine starts threads.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from toolbus_common.settings import SettingError

Session = Any  # a connection of chdb, which has no types


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Make imports of a package fail, unless this process has imported it already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # `import` then fails
    try:
        yield
    finally:
        del sys.modules[name]


def load() -> ModuleType:
    """Import the engine. Call it before starting other threads, which may import pyarrow.

    Raises:
        SettingError: the engine is not installed.

    """
    try:
        with _hidden("pyarrow"):
            return import_module("chdb")
    except ModuleNotFoundError as error:
        raise SettingError(
            "This installation has no embedded ClickHouse; set TOOLBUS_CLICKHOUSE_URL to a server, "
            "or install the package chdb-core."
        ) from error


def connect(location: str) -> Session:
    """Return a connection to the engine's directory, or to `:memory:`."""
    return load().connect(location)
