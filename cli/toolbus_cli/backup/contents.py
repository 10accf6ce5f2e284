"""Which files of a state directory belong to which part of a backup, and which to none."""

from dataclasses import dataclass
from pathlib import Path

from toolbus_cli.backup.errors import BackupError
from toolbus_common.settings import MOVED_EVENTS_FILE

TABLES, STREAM, COUNTERS, OUTBOX, CHECKPOINTS = (
    "tables", "stream", "counters", "outbox", "checkpoints",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Content:
    """The paths of a part, its contents (`holds`), and the effect of its absence (`without`)."""

    part: str
    paths: tuple[str, ...]
    holds: str
    without: str
    is_required: bool = False


# In the order in which they are copied: the stream is never older than the tables.
CONTENTS = (
    Content(
        TABLES, ("clickhouse",), "the audit's tables",
        "rows of the last 14 days are rebuilt from the stream with 'toolbus audit backfill'; older "
        "ones are lost",
        is_required=True,
    ),
    Content(
        CHECKPOINTS, ("evidence/*.jsonl",), "files of signed checkpoints",
        "none was written; the tables and the stream have them too",
    ),
    Content(
        COUNTERS, ("valkey/appendonlydir",), "counters of budgets and rates",
        "they are rebuilt from the events",
    ),
    Content(
        OUTBOX, ("spool",), "events that the bus has not acknowledged",
        "events that the bus had not acknowledged at that time are missing",
    ),
    Content(
        STREAM, ("nats/store",), "configuration, accounts, grants, connections and events",
        "everything is configured again",
        is_required=True,
    ),
)  # fmt: skip
LOCK = "backup.lock"  # held while a running installation is backed up
# Written again by the next start, fetched again, or moved to the tables.
_LEFT_OUT = frozenset({
    LOCK, "caches", "clickhouse.lock", "clickhouse.policies", MOVED_EVENTS_FILE, "lock",
    "nats/nats.conf", "ports.json", "run.json", "valkey/valkey.conf",
})  # fmt: skip


def tops_of(root: Path, content: Content) -> list[str]:
    """Return the existing paths of a part, relative to the state directory."""
    return sorted(
        found.relative_to(root).as_posix() for path in content.paths for found in root.glob(path)
    )


def small_files(root: Path) -> list[Path]:
    """Return every file that belongs to no part: the keys, and small files beside them.

    A file that this version does not know may be a key too. Raises `BackupError` for a link.
    """
    parts = {top for content in CONTENTS for top in tops_of(root, content)}
    return sorted(_rest(root, root, parts))


def _rest(root: Path, folder: Path, parts: set[str]) -> list[Path]:
    found: list[Path] = []
    for path in folder.iterdir():
        name = path.relative_to(root).as_posix()
        if name in parts or name in _LEFT_OUT:
            continue
        if path.is_symlink():
            raise BackupError(f"'{path}' is a link; replace it with the file.")
        if path.is_dir():
            found += _rest(root, path, parts)
        elif path.is_file():
            found.append(path)
    return found
