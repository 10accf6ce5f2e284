"""Ends of the logs of gateways, for the report of a failed test."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

RECENT_SECONDS = 180.0  # older logs belong to other tests
MAX_LOGS = 4
MAX_LINES = 30


def log_tails(directory: Path) -> str:
    """Return the last lines of the logs that were written last below a directory."""
    recent = sorted(_recent_logs(directory), reverse=True)[:MAX_LOGS]
    return "\n".join(f"{path.relative_to(directory)}\n{_tail(path)}" for _, path in recent)


def _recent_logs(directory: Path) -> Iterator[tuple[float, Path]]:
    earliest = time.time() - RECENT_SECONDS
    for path in directory.rglob("*"):
        with suppress(OSError):  # another worker removes its directories
            written = path.stat().st_mtime
            is_log = path.suffix == ".log" or path.name == "output"
            if is_log and written > earliest and path.is_file():
                yield written, path


def _tail(path: Path) -> str:
    with suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-MAX_LINES:])
    return ""
