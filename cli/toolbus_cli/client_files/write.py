"""Reading and replacing a client's file, with a backup of its earlier contents."""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from toolbus_cli.errors import CommandError

LARGEST = 16 << 20  # Claude Code keeps its history in the same file
_TAKEN = 100  # maximum number of backups in one second


def text_of(path: Path) -> str:
    """Return the text of a file, or nothing if it does not exist. Raises `CommandError`."""
    try:
        if path.stat().st_size > LARGEST:
            raise CommandError(f"{path} is larger than {LARGEST >> 20} MiB; change it by hand.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read as text; check the file.") from error


def replaced(path: Path, text: str, *, private: bool) -> Path | None:
    """Replace a file atomically; return the path of the backup, or None if there was no file.

    A symbolic link stays: the file that it names is replaced. A private file is readable by its
    owner only. Raises `CommandError`.
    """
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_mask()
        mode = mode & 0o700 if private else mode
        backup = _backup(target) if target.exists() else None
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        _create(draft, text.encode(), mode)
        draft.replace(target)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written ({(error.strerror or 'failed').lower()}); check its rights."
        ) from error
    return backup


def _backup(path: Path) -> Path:
    """Copy a file beside itself, readable by its owner only; return the copy's path."""
    made = f"{path.name}.{datetime.now(UTC):%Y%m%d-%H%M%S}"
    content = path.read_bytes()
    for number in range(_TAKEN):
        copy = path.with_name(f"{made}{f'-{number}' if number else ''}.bak")
        try:
            _create(copy, content, 0o600)
        except FileExistsError:
            continue
        return copy
    raise FileExistsError(0, "too many backups exist beside it")


def _create(path: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _mask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
