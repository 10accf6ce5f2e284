"""The embedded engine, imported without pyarrow.

The engine works without pyarrow, which it needs for data frames only. The import of pyarrow and
numpy would take 37 MB, and a third of the time to import the modules of audit.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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


with _hidden("pyarrow"):
    import chdb

Session = Any  # a connection of chdb, which has no types
connect: Callable[[str], Session] = chdb.connect
