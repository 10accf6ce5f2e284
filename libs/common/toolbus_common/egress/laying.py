"""A text where only a file will do, for as long as it is read."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile


@contextmanager
def laid_down(text: bytes) -> Iterator[str]:
    """A path to read it at. Where the system can, it lies in memory and on no disk."""
    if sys.platform != "linux":
        with NamedTemporaryFile() as file:  # readable by its owner alone
            file.write(text)
            file.flush()
            yield file.name
        return
    descriptor = os.memfd_create("toolbus")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(text)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
