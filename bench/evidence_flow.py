"""Events from a call to a row, and their cost for the call (`make bench-evidence-flow`).

Parts, selected with --only: `ingest` (events per second into the embedded engine, on two cores),
`cost` (what recording adds to a call), `watching` (delay until a call is a row, and age of the last
checkpoint, at 200 calls per second), `embedded` and `server` (ClickHouse unavailable for minutes
under that load, and its recovery).
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from figures import Row, keep, load, met, show
from flowing.clickhouse_outage import away
from flowing.cost import cost
from flowing.freshness import watching
from flowing.ingest import ingest
from harness.gateway.kill_campaign import KillCampaign

PARTS = ("ingest", "cost", "watching", "embedded", "server")


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, metavar="PART")
    parser.add_argument("--events", type=int, default=400_000, help="events of `ingest`")
    parser.add_argument(
        "--calls", type=int, default=2000, help="calls of `cost` through each gateway"
    )
    parser.add_argument(
        "--rate", type=float, default=200.0, help="calls per second of the other parts"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="seconds of `watching`")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes without ClickHouse")
    options = parser.parse_args()
    before = load()
    parts: dict[str, Callable[[], Iterable[Row]]] = {
        "ingest": lambda: ingest(options.events),
        "cost": lambda: cost(options.calls),
        "watching": lambda: _watched(options.rate, options.seconds),
        "embedded": lambda: away("embedded", options.rate, options.minutes),
        "server": lambda: away("server", options.rate, options.minutes),
    }
    rows = [each for part in options.only for each in parts[part]()]
    show(rows)
    header = {"asked": vars(options), "before": before, "after": load()}
    keep("evidence-flow", {**header, "rows": rows})
    return 0 if met(rows) else 1


def _watched(rate: float, seconds: float) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="toolbus-watching-") as name,
        KillCampaign(Path(name), rate).running() as gateway,
    ):
        return list(watching(gateway, seconds))


if __name__ == "__main__":
    sys.exit(main())
