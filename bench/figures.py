"""Figures of all benchmarks: demands, tables and stored results."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
console = Console()


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


def keep(name: str, report: dict[str, Any]) -> None:
    """Store the report as JSON among the results, with its time, and print the path."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps({"at": now.isoformat(), **report}, indent=2) + "\n")
    console.print(f"saved {path.relative_to(RESULTS.parent.parent)}")
