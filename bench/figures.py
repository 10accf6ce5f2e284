"""Figures of all benchmarks: demands, tables and stored results."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
console = Console()
_STARTED = monotonic()


def row(what: str, value: float, sign: str, demand: float, **more: Any) -> Row:
    """Return a figure and whether it meets its demand: at most (`<=`) or at least (`>=`)."""
    met = value <= demand if sign == "<=" else value >= demand
    return {"what": what, "value": value, "demand": f"{sign} {demand:g}", "met": met, **more}


def show(rows: list[Row]) -> None:
    """Print the rows as a table."""
    table = Table("figure", "value", "demand", "")
    for each in rows:
        value, verdict = f"{each['value']:,.3f}", "" if each["met"] else "[bold red]MISSED[/]"
        table.add_row(each["what"], value, each["demand"], verdict)
    console.print(table)


def met(rows: list[Row]) -> bool:
    """Return whether every demand holds."""
    return all(each["met"] for each in rows)


def load() -> dict[str, float]:
    """Return the machine's load average; figures of a busy machine are unreliable."""
    return {"load": os.getloadavg()[0], "cores": float(os.cpu_count() or 1)}


def commit() -> str:
    """Return the commit that is measured, with `-dirty` if files differ from it."""
    describe = ["git", "describe", "--always", "--exclude=*", "--abbrev=10", "--dirty"]
    done = subprocess.run(describe, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def keep(name: str, report: dict[str, Any]) -> None:
    """Store the report as JSON among the results, and print the path.

    Its time, commit and the seconds since the start of the process are added.
    """
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    seconds = round(monotonic() - _STARTED, 1)
    about = {"at": now.isoformat(), "commit": commit(), "seconds": seconds}
    path.write_text(json.dumps({**about, **report}, indent=2) + "\n")
    console.print(f"saved {path.relative_to(RESULTS.parent.parent)}")
