"""Kill policy between each pair of steps of a call and compare charges (`make chaos-ledger`).

Both layouts: separate processes, and the call path in one process. Each kill is `kill -9` during
one call, whose key has its own budget. Then each call is compared on its own: the amount that the
ledger spent, the charge in the events, and what the upstream executed. A call without an outcome
whose intent was stored may have run: it is charged in full, once, as unknown.
"""

import argparse
import random
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path
from time import monotonic
from typing import Any

from rich.progress import track
from rich.table import Table

from figures import console, keep, load
from harness.gateway.policy_crashes import (
    FUSED_POINTS,
    SEPARATE_POINTS,
    Case,
    Charge,
    PolicyCrashes,
)

TITLES = {False: "separate processes", True: "one process"}
AFTER = {
    "received": "received, before the reservation",
    "reserved": "reserved, before the intent is sent",
    "sent": "intent sent, before its acknowledgement",
    "recorded": "intent stored, before the call is dispatched",
    "handed-over": "dispatched, before it is executed",
    "executing": "while the upstream executes",
    "executed": "executed, before the outcome is published",
    "ended": "outcome published, before the settlement",
    "settled": "settled, before the acknowledgement",
}
Row = dict[str, Any]


def main() -> int:
    """Kill and compare; return 0 if every call costs what it must and nothing is held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="kills in both layouts together")
    parser.add_argument("--seed", type=int, default=7, help="of the order of the kills")
    options = parser.parse_args()
    points = [(fused, *point) for fused in (False, True) for point in _points(fused)]
    chosen = list(islice(cycle(points), options.kills))
    began, rows = monotonic(), list[Row]()
    for fused in (False, True):
        cases = [
            Case(step, lost, number)
            for number, (layout, step, lost) in enumerate(chosen)
            if layout == fused
        ]
        random.Random(options.seed).shuffle(cases)
        if cases:
            rows += _rows(fused, _killed(fused, cases))
    _show(rows)
    wrong = sum(row["wrong"] for row in rows)
    minutes = (monotonic() - began) / 60
    console.print(f"{sum(row['kills'] for row in rows)} kills, {wrong} wrong, {minutes:.1f} min")
    keep("policy-kills", {"machine": load(), "rows": rows, "minutes": minutes})
    return 1 if wrong else 0


def _points(fused: bool) -> tuple[tuple[str, bool], ...]:  # noqa: FBT001
    return FUSED_POINTS if fused else SEPARATE_POINTS


def _killed(fused: bool, cases: list[Case]) -> dict[Case, Charge]:  # noqa: FBT001
    with (
        tempfile.TemporaryDirectory(prefix="toolbus-kills-") as directory,
        PolicyCrashes(Path(directory), cases, fused=fused).running() as crashes,
    ):
        for case in track(cases, f"Killing, {TITLES[fused]}", console=console):
            crashes.crash(case)
        return crashes.charges()


def _rows(fused: bool, charges: dict[Case, Charge]) -> list[Row]:  # noqa: FBT001
    rows = []
    for step, lost in _points(fused):
        found = {
            case: charge
            for case, charge in charges.items()
            if (case.step, case.lost) == (step, lost)
        }
        row: Row = {
            "layout": TITLES[fused],
            "point": AFTER[step] + (", outcome lost" if lost else ""),
            "kills": len(found),
            "executed": sum(each.executed for each in found.values()),
            "unknown": sum(each.unknown for each in found.values()),
            "charged": sum(each.spent for each in found.values()),
            "in_events": sum(each.recorded for each in found.values()),
            "owed": sum(case.charge for case in found),
            "held": sum(each.held for each in found.values()),
            "wrong": sum(each != Charge.expected(case) for case, each in found.items()),
        }
        rows.append({**row, "difference": row["charged"] - row["owed"]})
    return rows


def _show(rows: list[Row]) -> None:
    table = Table(title="micro-dollars, summed over calls; each call is compared on its own")
    columns = (
        "layout", "point", "kills", "executed", "unknown", "charged", "in_events", "owed",
        "difference", "held", "wrong",
    )  # fmt: skip
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
