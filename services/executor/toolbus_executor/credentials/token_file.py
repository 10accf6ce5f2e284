"""The file in which a process finds its token: private, in memory, and replaced as a whole."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

_MEMORY = "/dev/shm"  # noqa: S108 - tokens are on no disk where there is memory to keep them in


class TokenFile:
    """One token in a directory of its own, which a process is shown in its private home.

    `declared` is the path as it is declared, such as `~/.secrets/token`. The directory's name
    begins with our process, so that what a killed one left is removed by the next.
    """

    def __init__(self, declared: str, state_dir: Path) -> None:
        self._name = Path(declared).name
        self.below_home = str(Path(declared).parent).removeprefix("~/")
        above = _above(state_dir)
        _sweep(above)
        self.directory = above / f"{os.getpid()}-{token_hex(8)}"
        self.directory.mkdir(mode=0o700)

    def write(self, token: str) -> None:
        """Put a token there; whoever reads sees the whole one before, or this one."""
        made = self.directory / f".{self._name}.new"
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        made.replace(self.directory / self._name)

    def remove(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _above(state_dir: Path) -> Path:
    """The directory of all of them, which nobody else may have made."""
    shared = Path(_MEMORY)
    above = state_dir.resolve() / "tokens"
    if shared.is_dir() and os.access(shared, os.W_OK):
        above = shared / f"toolbus-tokens-{os.geteuid()}"
    above.mkdir(mode=0o700, exist_ok=True, parents=True)
    found = above.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o170077 != 0o040000:  # noqa: PLR2004
        raise PermissionError(1, f"{above} belongs to somebody else; remove it")
    return above


def _sweep(above: Path) -> None:
    """Remove what belongs to no process any more."""
    with suppress(OSError):
        for each in above.iterdir():
            pid = each.name.partition("-")[0]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(each, ignore_errors=True)
