"""Memory of every process of a fused gateway before, during and after a load (`make bench-memory`).

The figure is PSS: pages that processes share are divided among them, so the sum is what the gateway
takes from the machine. A figure is taken ten seconds after the load has paused and every event is a
row. The peak is the greatest of the figures taken every second under load. The load generator and
the upstream are not counted.
"""

import argparse
import sys
import threading
from time import monotonic, sleep

from figures import console, keep, load, met, row, show
from processes import cpu_seconds, name_of, pss_mb
from run import SECRET, Gateway, call_load, echoing, gateway, machine, processes_of, quiet

TOTAL, NATS, AUDIT = "all", "nats-server", "audit"
DEMANDS = {TOTAL: 500.0, NATS: 100.0, AUDIT: 250.0}  # MB of PSS
MAX_GROWTH = 1.05  # from 200,000 calls to the last figure
SETTLED_CALLS = 200_000
CONNECTIONS = 64
STEP_SECONDS = 5.0
SETTLE_SECONDS = 10.0  # allocators return freed memory after some seconds
Memory = dict[str, float]


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=SETTLED_CALLS)
    parser.add_argument("--figures", type=int, default=2, help="number of pauses of the load")
    options = parser.parse_args()
    before = load()
    marks = [options.calls * each // options.figures for each in range(1, options.figures + 1)]
    with echoing() as port, gateway("fused", port, 0) as up:
        quiet(processes_of(up))
        taken, peak = {0: memory(up)}, Peak(up)
        cpu = _cpu(up)
        for mark in marks:
            calls = max(taken) + _drive(up, mark - max(taken), peak)
            quiet(processes_of(up))
            sleep(SETTLE_SECONDS)
            taken[calls] = memory(up)
            _print(calls, taken[calls])
        used = {
            name: (seconds - cpu.get(name, 0.0)) / max(taken) * 1e6
            for name, seconds in _cpu(up).items()
        }
    rows = _rows(taken, peak.memory)
    show(rows)
    header = {"machine": machine(), "asked": vars(options), "before": before, "after": load()}
    console.print("CPU µs per call:", ", ".join(f"{each} {us:.1f}" for each, us in used.items()))
    figures = {"pss_mb": taken, "peak_pss_mb": peak.memory, "cpu_us_per_call": used}
    keep("memory", {**header, **figures, "rows": rows})
    return 0 if met(rows) else 1


def memory(up: Gateway) -> Memory:
    """Return the PSS of each process of the gateway by name, and of all, in MB."""
    found: Memory = {}
    for pid in processes_of(up):
        name = name_of(pid)
        found[name] = round(found.get(name, 0.0) + pss_mb(pid), 1)
    return found | {TOTAL: round(sum(found.values()), 1)}


def _cpu(up: Gateway) -> dict[str, float]:
    """Return the CPU seconds of each process, because saving memory may cost processor time."""
    return {name_of(pid): cpu_seconds(pid) for pid in processes_of(up)}


class Peak:
    """The greatest PSS of each process, and of all, measured every second while it is entered."""

    def __init__(self, up: Gateway) -> None:
        self.memory: Memory = {}
        self._up = up
        self._over = threading.Event()

    def __enter__(self) -> None:
        self._over.clear()
        self._thread = threading.Thread(target=self._measure)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _measure(self) -> None:
        while not self._over.wait(1.0):
            for name, mb in memory(self._up).items():
                self.memory[name] = max(mb, self.memory.get(name, 0.0))


def _drive(up: Gateway, calls: int, peak: Peak) -> int:
    """Make at least this many calls with checked replies; return how many."""
    made, seconds = 0, 1.0
    with peak:
        while made < calls:
            began = monotonic()
            made += call_load(up.endpoint, "echo__echo", SECRET, CONNECTIONS, seconds)[
                "all_requests"
            ]
            rate = made / (monotonic() - began)
            seconds = min(STEP_SECONDS, max((calls - made) / rate, 0.5))
    return made


def _rows(taken: dict[int, Memory], peak: Memory) -> list[dict[str, object]]:
    last = taken[max(taken)]
    rows = []
    for name, mb in last.items():
        course = ", ".join(f"{taken[calls].get(name, 0.0):.0f}" for calls in taken)
        what = f"PSS of {name}, MB ({course}; peak {peak.get(name, 0):.0f})"
        if name in DEMANDS:
            rows.append(row(what, mb, "<=", DEMANDS[name]))
        else:
            rows.append({"what": what, "value": mb, "demand": "", "met": True})
    settled = [memory[TOTAL] for calls, memory in taken.items() if calls >= SETTLED_CALLS]
    if len(settled) > 1:
        what = f"growth of the sum after {SETTLED_CALLS:,} calls"
        rows.append(row(what, settled[-1] / settled[0], "<=", MAX_GROWTH))
    return rows


def _print(calls: int, figures: Memory) -> None:
    console.print(f"{calls:,} calls:", ", ".join(f"{each} {mb}" for each, mb in figures.items()))


if __name__ == "__main__":
    sys.exit(main())
