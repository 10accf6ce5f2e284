"""Race for one budget while policy and Valkey are killed, and latency (`make bench-ledger`).

The race is for one customer's budget, over customer, teams, users and keys, at a price that depends
on the result. Overshoot, drift between ledger and events, and leaked reservations must be 0.
"""

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter, time
from typing import Any

from figures import console, keep
from harness.gateway.budget_race import LauncherValkey, Race
from harness.services.ledger_state import MemoryGenerations, admitted, claim
from toolbus_common.config import Budget, Level, Period
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.ledger.ledger import Ledger, ReservationEnd

ROUNDS = 5
CALLS = 2000
BUDGET = Budget(usd=1_000_000, per=Period.MONTH)


def main() -> int:
    """Run the benchmark; return 0 without overshoot, drift or leaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reservations", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument(
        "--every",
        type=float,
        nargs=2,
        default=(2.0, 5.0),
        help="minimum and maximum seconds between two kills",
    )
    parser.add_argument("--latency-only", action="store_true")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": _machine()}
    clean = True
    with tempfile.TemporaryDirectory(prefix="toolbus-ledger-") as directory:
        report["reservation_us"] = asyncio.run(_latency(Path(directory) / "alone"))
        if not options.latency_only:
            race = Race(Path(directory) / "race", options.reservations, options.clients)
            figures = race.run(every=tuple(options.every))
            report["race"], clean = figures.report(), figures.clean
    console.print_json(data=report)
    keep("ledger", report)
    return 0 if clean else 1


async def _latency(directory: Path) -> dict[str, Any]:
    """Measure microseconds per reservation of one client: with one budget, and with four."""
    server = LauncherValkey(directory)
    server.start()
    ledger = Ledger(server.url, MemoryGenerations())
    levels = [(each, Level(budget=BUDGET)) for each in ("key:a", "user:b", "team:c", "customer:d")]
    found: dict[str, list[float]] = {"one": [], "four": []}
    try:
        for number in range(ROUNDS):
            for name, some in (("one", levels[:1]), ("four", levels)):
                found[name] += await _reserved(ledger, admitted(100, *some), f"{name}{number}")
    finally:
        await ledger.close()
        server.kill()
    return {name: _quantiles(taken) for name, taken in found.items()}


async def _reserved(ledger: Ledger, wanted: Admission, prefix: str) -> list[float]:
    taken, ends = [], []
    for number in range(CALLS):
        request = claim(f"{prefix}.{number}", wanted, time() + 60)
        began = perf_counter()
        await ledger.reserve(request)
        taken.append((perf_counter() - began) * 1e6)
        ends.append(ReservationEnd(request.rid, "acme", "settle", 100))
    for start in range(0, len(ends), 500):
        await ledger.settle(ends[start : start + 500])
    return taken


def _quantiles(taken: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(taken, n=100)
    return {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)}


def _machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()}


if __name__ == "__main__":
    sys.exit(main())
