"""Memory, open files, threads and tasks of the processes of `measured_services.py`."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from harness.waits import until_blocking

PROGRAM = "measured_services.py"


@dataclass(frozen=True, slots=True)
class Report:
    """What one process has. `memory` is its anonymous resident memory in bytes."""

    memory: int
    files: int
    threads: int
    tasks: int = 0
    blocks: int = 0  # allocated by Python, after a collection
    traced: int = 0  # bytes of these blocks; 0 without tracing


def report_of(pid: int) -> Report:
    """Return what the system reports of any process. Raises `OSError` if it has ended."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    if "RssAnon" not in status:
        raise ProcessLookupError(pid)
    return Report(
        memory=int(status["RssAnon"].split()[0]) * 1024,
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
    )


def full_report_of(pid: int, directory: Path) -> Report:
    """Return the report of a process of `measured_services.py` with this `MEASURED_DIR`."""
    path = directory / f"{pid}.json"
    path.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    until_blocking(path.exists, f"the report of process {pid}")
    own, seen = json.loads(path.read_text()), report_of(pid)
    return Report(seen.memory, seen.files, seen.threads, own["tasks"], own["blocks"], own["bytes"])
