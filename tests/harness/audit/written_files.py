"""Files of a directory that other processes write to."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def files_in(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Return all files with their content, in order. Files removed during the call are omitted."""
    for place, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            with suppress(FileNotFoundError):
                path = Path(place, name)
                if path.is_file():  # no sockets, no broken links
                    yield path, path.read_bytes()
