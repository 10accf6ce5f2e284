"""Seconds to ready and memory of `toolbus up --lite` (`make bench-lite`).

Memory is the PSS of Toolbus, NATS and Valkey, after the start and after calls, without a program of
code mode, which would start the processes of the sandbox. Each start begins in an empty directory
and imports compiled modules; on a busy machine, its processor time says more than its duration. The
load generator and the upstream are not counted.
"""

import argparse
import statistics
import sys
from time import sleep
from typing import Any

from figures import keep, load, met, row, show
from memory import TOTAL, memory
from processes import cpu_seconds
from run import SECRET, call_load, echoing, gateway, machine, processes_of, quiet

READY_SECONDS, MEMORY_MB = 1.5, 200.0
SETTLE_SECONDS = 5.0


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of the calls")
    options = parser.parse_args()
    before, taken, ready, used = load(), {}, [], []
    with echoing(10) as port:
        for number in range(options.starts):
            with gateway("lite", port, 0) as up:
                ready.append(up.ready_seconds)
                used.append(sum(map(cpu_seconds, processes_of(up))))
                if number:
                    continue
                sleep(SETTLE_SECONDS)
                taken["idle"] = memory(up)
                calls = call_load(up.endpoint, "echo__echo", SECRET, 8, options.seconds)
                quiet(processes_of(up))
                taken["after calls"] = memory(up)
    rows = [row("ready, s, median", statistics.median(ready), "<=", READY_SECONDS)]
    what = "processor time until the first call, s, median"
    rows.append({"what": what, "value": statistics.median(used), "demand": "", "met": True})
    for moment, found in taken.items():
        parts = ", ".join(f"{name} {mb:.0f}" for name, mb in found.items() if name != TOTAL)
        rows.append(row(f"PSS {moment}, MB ({parts})", found[TOTAL], "<=", MEMORY_MB))
    show(rows)
    report: dict[str, Any] = {"machine": machine(), "before": before, "after": load()}
    report |= {
        "ready_seconds": ready,
        "cpu_seconds": used,
        "calls": calls["all_requests"],
        "pss_mb": taken,
    }
    keep("lite", {**report, "rows": rows})
    return 0 if met(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
