"""Files of a key that is replaced in stages: `policy.next.key`, `policy.key`, `policy.<time>.key`.

A stage can be repeated after it was interrupted.
"""

import os
import time
from pathlib import Path

from toolbus_cli.errors import CommandError
from toolbus_common.crypto.key_file import KEY_BYTES, create_key, keys_beside

NEXT = "next"
STORED_SECONDS = 2.0  # NATS writes to its disk every second: no key is removed before that


def prepared(path: Path) -> str:
    """Create the next key."""
    create_key(next_of(path), lambda: os.urandom(KEY_BYTES))
    return (
        f"The next key is in '{next_of(path)}', and is accepted. The earlier one is still in use."
    )


def switched(path: Path) -> str:
    """Put the next key into use, and keep the earlier one. Raises `CommandError`."""
    following = next_of(path)
    if not following.exists():
        raise CommandError(f"There is no next key '{following}'; run '--stage prepare' first.")
    before = _free(path)
    if not before.exists():
        os.link(path, before)  # the key always exists: without it, a start would create another
    following.replace(path)
    return f"'{path}' has the new key. The earlier one is in '{before}', and is accepted."


def finished(path: Path) -> str:
    """Remove the earlier keys. Raises `CommandError`."""
    require_switched(path)
    found = keys_beside(path)
    for each in found:
        each.unlink()
    return f"{len(found)} earlier keys were removed; what they encrypted can no longer be read."


def require_switched(path: Path) -> None:
    """Raise `CommandError` while there is a next key."""
    if next_of(path).exists():
        raise CommandError(
            f"The next key '{next_of(path)}' is not in use; run '--stage switch' first."
        )


def next_of(path: Path) -> Path:
    """Return the file of the next key."""
    return _beside(path, NEXT)


def _free(path: Path) -> Path:
    """Return the path for the key at `path`, which is replaced.

    Nothing exists at the returned path, or an interrupted stage has linked it to the key already.
    """
    at = int(time.time())
    while True:
        found = _beside(path, time.strftime("%Y%m%dT%H%M%S", time.gmtime(at)))
        if not found.exists() or found.samefile(path):
            return found
        at += 1  # two keys went out of use within a second


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}{path.suffix}")
