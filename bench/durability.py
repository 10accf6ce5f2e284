"""Parts of a gateway killed repeatedly under steady load (`make bench-durability`).

Every service is its own process. The load is 200 calls per second over HTTP: paid and free, fast
and slow, and programs that make calls. Each victim has its own gateway and is killed with SIGKILL;
audit is also killed during an insert. When everything has settled, the calls at the upstream, the
agents' answers, the events and the ledger are compared.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median

from figures import Row, console, keep, load, met, row, show
from harness.gateway.kill_campaign import VICTIMS, Figures, KillCampaign

RATE = 200.0


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="kills of each victim")
    parser.add_argument("--rate", type=float, default=RATE, help="calls per second")
    parser.add_argument(
        "--seconds",
        type=float,
        nargs=2,
        default=(0.5, 1.5),
        help="minimum and maximum seconds between two kills",
    )
    parser.add_argument("--only", choices=VICTIMS, nargs="+", default=VICTIMS, metavar="VICTIM")
    options = parser.parse_args()
    before, found = load(), []
    for victim in options.only:
        found.append(_killed(victim, options))
        console.print(_line(found[-1]))
    rows = [each for figures in found for each in _rows(figures)]
    show(rows)
    header = {"asked": vars(options), "before": before, "after": load()}
    keep("durability", {**header, "victims": list(map(asdict, found)), "rows": rows})
    return 0 if met(rows) else 1


def _killed(victim: str, options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory(prefix="toolbus-durability-") as name:
        killing = KillCampaign(Path(name), options.rate, TOOLBUS_OUTCOME_GRACE="1")
        with killing.running():
            return killing.kill(victim, options.kills, tuple(options.seconds))


def _line(found: Figures) -> str:
    recovered = sorted(found.recovered) or [0.0]
    return (
        f"{found.victim}: {found.kills} kills in {found.seconds:.0f} s, {found.calls} calls,"
        f" {found.answered} answered, {found.broken} cut off, {found.unknown} with unknown outcome,"
        f" {found.failed or 'none'} failed; back after {median(recovered):.1f} s,"
        f" at most {recovered[-1]:.1f} s"
    )


def _rows(found: Figures) -> Iterator[Row]:
    for what, value in (
        ("accepted calls without intent or outcome", found.lost),
        ("missing events, by their producers' numbers", found.missing),
        ("events stored twice", found.doubled_rows),
        ("calls made twice", found.run_twice),
        ("wrong answers", found.wrong),
        ("charges that differ from the events: micro-dollars", found.drift),
        ("leaked reservations: micro-dollars", found.reserved),
    ):
        yield row(f"{found.victim}: {what}", value, "<=", 0)


if __name__ == "__main__":
    sys.exit(main())
