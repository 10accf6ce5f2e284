"""What lies in the files of a directory that others are at work in."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def files_in(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file, in order, and what it holds; without what is removed meanwhile."""
    for place, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            with suppress(FileNotFoundError):
                path = Path(place, name)
                if path.is_file():  # no socket, no link that leads nowhere
                    yield path, path.read_bytes()
