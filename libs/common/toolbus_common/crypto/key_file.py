"""Symmetric keys in files. A missing file is created; only its owner can read it."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

KEY_BYTES = 32


def load_key(path: Path) -> bytes:
    """Return the key in a file. A missing file is created with a new key.

    Replicas on several machines need the same file. Otherwise each replica can decrypt only its own
    texts.

    Raises:
        ValueError: the file contains no key.

    """
    create_key(path, lambda: os.urandom(KEY_BYTES))
    return read_key(path)


def read_key(path: Path) -> bytes:
    """Return the key in an existing file.

    Raises:
        ValueError: the file does not exist, or contains no key.

    """
    try:
        key = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(
            f"There is no key file '{path}'; name the file that holds the key."
        ) from error
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"The key file '{path}' must hold {KEY_BYTES} bytes; remove it to create a new key."
        )
    return key


def accepted_keys(path: Path) -> list[bytes]:
    """Return the key in a file, which is created if it is missing, and the other accepted keys.

    For `policy.key`, the other keys are in files `policy.*.key`: earlier keys, and the next key of
    a rotation.

    Raises:
        ValueError: a file contains no key.

    """
    beside = sorted(path.parent.glob(f"{path.stem}.*{path.suffix}"))
    return [load_key(path), *map(read_key, beside)]


def create_key(path: Path, generate: Callable[[], bytes]) -> None:
    """Create a file with a new key, readable only by its owner, unless the file exists."""
    if path.exists():
        return  # a provided file may be in a read-only directory
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "wb") as fresh:
            fresh.write(generate())
            fresh.flush()
            os.fsync(handle)  # the key must survive a power failure like the data encrypted with it
        with suppress(FileExistsError):
            os.link(name, path)  # atomic, also if two replicas start at the same time
    finally:
        Path(name).unlink()
