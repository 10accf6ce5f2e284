"""Symmetric keys in files. A missing file is created; only its owner can read it."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

KEY_BYTES = 32
_READS = 5  # of files that are replaced meanwhile


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
    return [load_key(path), *map(read_key, keys_beside(path))]


def keys_beside(path: Path) -> list[Path]:
    """Return the files of the other accepted keys, in the order of their names."""
    return sorted(path.parent.glob(f"{path.stem}.*{path.suffix}"))


class KeyFiles:
    """The key in a file and those accepted beside it, read again when the files were changed.

    `keys` begins with the key in use. Raises `ValueError` if a file contains no key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: tuple[bytes, ...] = ()
        self._seen: list[tuple[str, int, int]] = []
        create_key(path, lambda: os.urandom(KEY_BYTES))
        for left in reversed(range(_READS)):
            try:
                self._read()
                break
            except ValueError:
                if not left:
                    raise

    def refresh(self) -> bool:
        """Read changed files again, and return whether there are other keys.

        The keys remain as they were if a file is missing or cannot be read.
        """
        before = self.keys
        with suppress(OSError, ValueError):
            if self._listed() != self._seen:
                self._read()
        return self.keys != before

    def current(self) -> tuple[bytes, ...]:
        """Return the keys after reading changed files again."""
        self.refresh()
        return self.keys

    def _read(self) -> None:
        seen = self._listed()
        self.keys = tuple(dict.fromkeys(map(read_key, (self.path, *keys_beside(self.path)))))
        self._seen = seen

    def _listed(self) -> list[tuple[str, int, int]]:
        """Return the name, the number and the time of each file."""
        found = []
        for each in self.path.parent.glob(f"{self.path.stem}*{self.path.suffix}"):
            with suppress(FileNotFoundError):
                status = each.stat()
                found.append((each.name, status.st_ino, status.st_mtime_ns))
        return sorted(found)


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
