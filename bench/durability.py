"""`make bench-durability`: every part of a gateway killed again and again under an even load.

A whole gateway, each service a process of its own: 200 calls a second through HTTP, paid and free,
quick and slow, and programs that make calls of their own. Each victim has a gateway of its own
and is killed by SIGKILL so many times; audit also in the middle of an insert. Then everything is
left to settle, and what reached the upstream, what agents were told, the events and the ledger are
held against each other.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median

from figures import Row, console, keep, load, met, row, show
from harness.gateway.kill_campaign import VICTIMS, Figures, Killing

RATE = 200.0


def main() -> int:
    """Run it; 0 when every demand is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="of each victim")
    parser.add_argument("--rate", type=float, default=RATE, help="calls a second")
    parser.add_argument(
        "--seconds", type=float, nargs=2, default=(0.5, 1.5), help="of peace between two kills"
    )
    parser.add_argument("--only", choices=VICTIMS, nargs="+", default=VICTIMS, metavar="VICTIM")
    options = parser.parse_args()
    before, found = load(), []
    for victim in options.only:
        found.append(_killed(victim, options))
        console.print(_told(found[-1]))
    rows = [each for figures in found for each in _rows(figures)]
    show(rows)
    asked_for = {"asked": vars(options), "before": before, "after": load()}
    keep("durability", {**asked_for, "victims": list(map(asdict, found)), "rows": rows})
    return 0 if met(rows) else 1


def _killed(victim: str, options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory(prefix="toolbus-durability-") as name:
        killing = Killing(Path(name), options.rate, TOOLBUS_REAP_GRACE="1")
        with killing.begun():
            return killing.kill(victim, options.kills, tuple(options.seconds))


def _told(found: Figures) -> str:
    recovered = sorted(found.recovered) or [0.0]
    return (
        f"{found.victim}: {found.kills} kills in {found.seconds:.0f} s, {found.calls} calls,"
        f" {found.answered} answered, {found.broken} cut off, {found.unknown} named unknown,"
        f" {found.failed or 'none'} failed; back after {median(recovered):.1f} s,"
        f" at most {recovered[-1]:.1f} s"
    )


def _rows(found: Figures) -> Iterator[Row]:
    for what, value in (
        ("accepted calls without intent and outcome", found.lost),
        ("events their producer numbered that are missing", found.missing),
        ("events stored twice", found.doubled_rows),
        ("calls made twice", found.run_twice),
        ("wrong answers", found.wrong),
        ("charged, and not by the events: micro-dollars", found.drift),
        ("held for nothing: micro-dollars", found.held),
    ):
        yield row(f"{found.victim}: {what}", value, "<=", 0)


if __name__ == "__main__":
    sys.exit(main())
