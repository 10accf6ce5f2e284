"""Faults of an installation with replicas under load (`make chaos`).

Three NATS servers with three copies of everything, each in a network namespace of its own, Valkey
with a replica and a sentinel, a ClickHouse server and two replicas of each service, all separate
processes. The load has unique ids, and the upstream writes down what it
executes. For each fault, its calls are compared one by one with the record, and their sum with the
ledger; then the evidence is exported and verified. docs/explanation/reliability.md is written from
the newest measurement of each fault; `--page` does only that. It needs Linux with `ip`, `tc`,
`iptables`, `unshare` and `nsenter`, and libfaketime.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster_faults import network, page
from cluster_faults.account import Account, Accountant
from cluster_faults.capacity import carried
from cluster_faults.faults import FAULTS
from cluster_faults.installation import Installation
from cluster_faults.load import RecordedLoad
from figures import console, keep, load
from harness.waits import until_blocking

QUIET = 5.0  # seconds without a failed call after which a fault is over
PATIENCE = 180.0


def main() -> int:
    """Run the faults; return 0 if no call is lost, doubled or charged wrongly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=50.0, help="calls per second, up to 200")
    parser.add_argument("--before", type=float, default=5.0, help="seconds of load before a fault")
    parser.add_argument("--only", choices=FAULTS, nargs="+", default=[*FAULTS], metavar="FAULT")
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args()
    if options.page:
        page.write()
        return 0
    network.enter()
    before, accounts, rates = load(), list[Account](), list[dict[str, Any]]()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="toolbus-chaos-") as name,
            Installation(Path(name), options.rate).running() as place,
        ):
            for rate in carried(place) if len(options.only) > 1 else ():
                console.print(rate)
                rates.append(rate)
            for account in _accounts(place, options):
                console.print(page.line(account), soft_wrap=True)
                accounts.append(account)
    finally:  # a run that ends early keeps what it has measured
        rows = [asdict(account) for account in accounts]
        loads = {"before": before, "after": load()}
        keep("chaos", {"asked": vars(options), **loads, "carried": rates, "rows": rows})
        page.write()
    return 0 if all(each.sound and each.evidence == "valid" for each in accounts) else 1


def _accounts(place: Installation, options: argparse.Namespace) -> Iterator[Account]:
    accountant = Accountant(place)
    accountant.start_here()
    for name in options.only:
        began = time.monotonic()
        with place.loaded() as running:
            time.sleep(options.before)
            at = time.monotonic()
            returned = FAULTS[name](place) or time.monotonic()
            _until_quiet(running)
        place.until_whole()
        account = accountant.settled(name, running, at, returned)
        account.seconds = round(time.monotonic() - began, 1)
        yield account


def _until_quiet(running: RecordedLoad) -> None:
    """Wait until calls succeed and none has failed for some seconds."""
    since = time.monotonic()

    def is_quiet() -> bool:
        last = max([since, *running.troubled[-100:]])
        return time.monotonic() - last > QUIET and running.succeeded[-1].began > last

    until_blocking(is_quiet, "calls succeed again", PATIENCE)


if __name__ == "__main__":
    sys.exit(main())
