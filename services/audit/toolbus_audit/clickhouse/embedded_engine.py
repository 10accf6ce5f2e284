"""The embedded engine, imported without pyarrow.

The engine needs pyarrow for data frames only, and works without it. With numpy it takes 37 MB, and
a third of the time in which the modules of audit are imported.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let imports of a package fail, unless this process has imported it already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # what `import` takes for a missing package
    try:
        yield
    finally:
        del sys.modules[name]


with _hidden("pyarrow"):
    import chdb

Session = Any  # a connection of chdb, which has no types
connect: Callable[[str], Session] = chdb.connect
