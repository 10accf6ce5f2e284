"""Steady load on a gateway for hours: memory, files, threads, tasks and streams (`make soak`).

Every service is its own process, and the load has paid and free, fast and slow calls, and programs.
The first sixth of the run is not compared. Growth is that of a line through the later samples. With
`--leak policy`, that service keeps 1 KB of every event it publishes: the run must then fail.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import redis

from figures import Row, console, keep, load, met, row, show
from harness.clients.steady_load import Load
from harness.gateway.kill_campaign import KillCampaign
from harness.gateway.process_reports import PROGRAM, Report, full_report_of, report_of
from processes import family
from toolbus_common.nats.connection import Bus

SETTLING = 1 / 6  # 4 of 24 hours
MAX_GROWTH = 0.05
MAX_BYTES_PER_CALL = 512
IN_PROGRESS = 5  # tasks of the calls of a moment
ENGINES = ("nats", "valkey")
# Above it, Go collects more often; the launcher sets the same (docs/explanation/memory.md).
NATS_MEMORY = "96MiB"


@dataclass
class Samples:
    """The samples of a run, in order."""

    calls: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    reports: dict[str, list[Report]] = field(default_factory=dict)
    stores: list[dict[str, int]] = field(default_factory=list)

    @property
    def settled(self) -> slice:
        """The samples that are compared."""
        return slice(next(i for i, s in enumerate(self.seconds) if s >= self._settling), None)

    @property
    def _settling(self) -> float:
        return self.seconds[-1] * SETTLING


def main() -> int:
    """Run the soak; return 0 if nothing grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=240.0)
    parser.add_argument("--rate", type=float, default=50.0, help="calls per second")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two samples")
    parser.add_argument("--leak", default="", help="a service that leaks 1 KB an event")
    options = parser.parse_args()
    os.environ["GOMEMLIMIT"] = NATS_MEMORY
    before = load()
    with tempfile.TemporaryDirectory(prefix="toolbus-soak-") as name:
        soaked = KillCampaign(Path(name), options.rate, MEASURED_DIR=name)
        soaked.cluster.program = PROGRAM
        with soaked.running():
            if options.leak:
                os.kill(soaked.cluster.processes[options.leak][0].pid, signal.SIGUSR2)
            found, wrong = _soak(soaked, Path(name), options)
    rows = [*_rows(found), row("failed, wrong or broken calls", wrong, "<=", 0)]
    show(rows)
    header = {"asked": vars(options), "before": before, "after": load()}
    keep("soak", {**header, "calls": found.calls[-1], "rows": rows, "samples": asdict(found)})
    return 0 if met(rows) else 1


def _soak(soaked: KillCampaign, directory: Path, options: Any) -> tuple[Samples, int]:
    found, answered, began = Samples(), 0, monotonic()
    with soaked.loaded() as running:
        while monotonic() < began + options.minutes * 60:
            sleep(options.every)
            answered += len(running.succeeded)
            running.succeeded.clear()  # the generator has no part in the figures, but hours of it
            found.calls.append(answered)
            found.seconds.append(round(monotonic() - began, 1))
            found.stores.append(_stores(soaked))
            for name, report in _reports(soaked, directory):
                found.reports.setdefault(name, []).append(report)
            _print(found, running)
    return found, sum(running.failed.values()) + len(running.wrong) + running.broken


def _reports(soaked: KillCampaign, directory: Path) -> Iterator[tuple[str, Report]]:
    cluster = soaked.cluster
    for name, (process,) in cluster.processes.items():
        yield name, full_report_of(process.pid, directory)
        if name == "codemode":
            yield "sandbox", _sum(list(_living(family(process.pid)[1:])))
    (nats, valkey) = (cluster.nats, cluster.valkey)
    for name, engine in zip(ENGINES, (nats, valkey), strict=True):
        yield name, report_of(engine.pid)


def _living(pids: list[int]) -> Iterator[Report]:
    for pid in pids:
        with suppress(OSError):  # it has ended
            yield report_of(pid)


def _sum(reports: list[Report]) -> Report:
    return Report(
        sum(each.memory for each in reports),
        sum(each.files for each in reports),
        sum(each.threads for each in reports),
    )


def _stores(soaked: KillCampaign) -> dict[str, int]:
    """Return the streams and consumers of NATS, and the keys of Valkey that do not expire."""

    async def count(bus: Bus) -> dict[str, int]:
        streams = await bus.client.jetstream().streams_info()
        return {
            "streams": len(streams),
            "consumers": sum(each.state.consumer_count for each in streams),
        }

    with redis.Redis.from_url(soaked.cluster.valkey.url) as client:
        keys: dict[str, int] = client.info("keyspace").get("db0", {"keys": 0, "expires": 0})
    lasting = keys["keys"] - keys["expires"]
    return {**soaked.cluster.on_the_bus(count), "valkey_keys": lasting}


def _rows(found: Samples) -> Iterator[Row]:
    """Return the growth of each process between the settled samples."""
    calls = found.calls[found.settled]
    for name, reports in found.reports.items():
        settled = reports[found.settled]
        memory = [each.memory for each in settled]
        slope, start = statistics.linear_regression(calls, memory)
        first, last = start + slope * calls[0], start + slope * calls[-1]
        about = {"first_mb": first / 1e6, "last_mb": last / 1e6}
        yield row(f"{name}: growth of memory", last / first - 1, "<=", MAX_GROWTH, **about)
        if name not in (*ENGINES, "sandbox"):
            yield row(f"{name}: bytes kept of a call", slope, "<=", MAX_BYTES_PER_CALL)
        for what in ("files", "threads", "tasks"):
            counts = [getattr(each, what) for each in settled]
            if any(counts):
                most = IN_PROGRESS if what == "tasks" else 0
                yield row(f"{name}: more {what}", _more(counts), "<=", most)
    stores = found.stores[found.settled]
    for what in stores[0]:
        yield row(f"more {what}", _more([each[what] for each in stores]), "<=", 0)


def _more(counts: list[int]) -> float:
    """Return by how many the last third of the samples has more than the first, by medians."""
    third = max(1, len(counts) // 3)
    return statistics.median(counts[-third:]) - statistics.median(counts[:third])


def _print(found: Samples, running: Load) -> None:
    memory = ", ".join(
        f"{name} {reports[-1].memory / 1e6:.1f}" for name, reports in found.reports.items()
    )
    bad = sum(running.failed.values()) + len(running.wrong) + running.broken
    console.print(
        f"{found.seconds[-1]:.0f} s, {found.calls[-1]} calls, {bad} bad; MB: {memory}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
