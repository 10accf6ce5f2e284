"""Token file of a process: private, in memory, and replaced atomically."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

_MEMORY = "/dev/shm"  # noqa: S108 - memory keeps tokens off the disk


class TokenFile:
    """A file with one token, in a private directory that is mounted into the process's home.

    `path` is the configured path, such as `~/.secrets/token`. The directory's name begins with the
    executor's pid. The next executor therefore recognizes and removes the directories of an
    executor that was killed.
    """

    def __init__(self, path: str, state_dir: Path) -> None:
        self._name = Path(path).name
        self.below_home = str(Path(path).parent).removeprefix("~/")
        parent = _parent_dir(state_dir)
        _sweep(parent)
        self.directory = parent / f"{os.getpid()}-{token_hex(8)}"
        self.directory.mkdir(mode=0o700)

    def write(self, token: str) -> None:
        """Replace the token atomically: a reader gets either the old or the new token."""
        new_file = self.directory / f".{self._name}.new"
        descriptor = os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        new_file.replace(self.directory / self._name)

    def remove(self) -> None:
        """Remove the directory and the token file."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _parent_dir(state_dir: Path) -> Path:
    """Return the directory that contains the directories of all token files.

    Raises `PermissionError` if another user owns the directory or can access it.
    """
    shared = Path(_MEMORY)
    parent = state_dir.resolve() / "tokens"
    if shared.is_dir() and os.access(shared, os.W_OK):
        parent = shared / f"toolbus-tokens-{os.geteuid()}"
    parent.mkdir(mode=0o700, exist_ok=True, parents=True)
    found = parent.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o170077 != 0o040000:  # noqa: PLR2004
        raise PermissionError(
            1, f"{parent} belongs to another user or is accessible to others; remove it"
        )
    return parent


def _sweep(parent: Path) -> None:
    """Remove the directories of executors that no longer run."""
    with suppress(OSError):
        for each in parent.iterdir():
            pid = each.name.partition("-")[0]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(each, ignore_errors=True)
