"""Tables of the embedded ClickHouse, created once per run and copied for each test.

All migrations take 0.6 seconds of processor time, and most tests with audit need their result only.
Outside of pytest nothing is copied, so that a measurement starts with an empty directory.
"""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from toolbus_audit.clickhouse.migrate import Migration, migrations

_PROGRAM = Path(__file__).parents[1] / "programs" / "created_tables.py"
_IDENTITY = 23  # the migration with the id of the store


class _Template:
    """The directory that all workers of a run share; `None` outside of pytest."""

    shared: Path | None = None


def share(directory: Path) -> None:
    """Keep the tables in this directory, and let `migrated` copy them."""
    _Template.shared = directory


def migrated(state_dir: Path) -> Path:
    """Copy the tables into a state directory that has none. Return the state directory."""
    shared = _Template.shared
    if shared is not None and not (state_dir / "clickhouse").exists():
        shared.mkdir(exist_ok=True)
        with (shared / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (shared / "state").exists():
                _create_in(shared)
        made = shared / "state" / "clickhouse"
        shutil.copytree(made, state_dir / "clickhouse", symlinks=True)
    return state_dir


def _create_in(shared: Path) -> None:
    """Create the tables in another process: a process opens one directory of the engine."""
    shutil.rmtree(shared / "new", ignore_errors=True)
    subprocess.run([sys.executable, str(_PROGRAM), str(shared / "new")], check=True, timeout=180)
    (shared / "new").rename(shared / "state")


def migrations_before(version: int) -> list[Migration]:
    """Return the migrations before a version, and the one without which no store opens."""
    return [each for each in migrations() if each.version < version or each.version == _IDENTITY]
