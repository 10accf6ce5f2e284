"""A symmetric key in a file: made where there is none, and readable by its owner only."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

KEY_BYTES = 32


def load_key(path: Path) -> bytes:
    """The key in a file, made on first use.

    Replicas on several machines must be given the same file, else each opens only its own seals.

    Raises:
        ValueError: the file holds no key.

    """
    create_key(path, lambda: os.urandom(KEY_BYTES))
    return read_key(path)


def read_key(path: Path) -> bytes:
    """The key in a file that must be there.

    Raises:
        ValueError: it is not there, or the file holds no key.

    """
    try:
        key = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"There is no key {path}; name the file that holds it.") from error
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} must hold {KEY_BYTES} bytes; remove it to have one made.")
    return key


def create_key(path: Path, made: Callable[[], bytes]) -> None:
    """Make a file for its owner alone, unless it is there."""
    if path.exists():
        return  # one that is given may lie where nothing can be written
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "wb") as fresh:
            fresh.write(made())
            fresh.flush()
            os.fsync(handle)  # what is sealed with it outlives a power cut
        with suppress(FileExistsError):
            os.link(name, path)  # whole or not at all, even when two replicas begin at once
    finally:
        Path(name).unlink()
