"""Cost of a call inside a program, relative to a plain call (`make bench-nested`).

One gateway is loaded in turn with plain calls of a tool and with programs that call the same tool
many times. In both loads, eight calls are in flight. Everything is on for both: key, grant, budget,
rate limit, durable intent, settlement and audit. The cost of a nested call includes its share of
the program: its start, its sandbox and its own events.
"""

import sys
from statistics import median
from typing import Any

from rich.progress import track

from figures import console
from in_turn import arguments, judged
from processes import cpu_seconds
from run import SECRET, Gateway, call_load, echoing, gateway, processes_of, quiet

MAX_RATIO = 0.7  # of the CPU of a plain call
PLAIN = "echo__echo", {"text": "@@@@@@@@ bench"}
PROGRAM = "for _ in range({}):\n    got = echo.echo(text='@@@@@@@@ bench')\nresult = got"
CONNECTIONS = 8  # so many programs run at once, and each waits for one call


def main() -> int:
    """Run the benchmark; return 0 if the demand holds."""
    parser = arguments(__doc__)
    parser.add_argument("--calls", type=int, default=100, help="calls of each program")
    parser.set_defaults(pairs=5, seconds=6.0)
    options = parser.parse_args()
    code = PROGRAM.format(options.calls)
    program = "executeToolCode", {"code": code}
    with echoing() as port, gateway("fused", port, 0) as up:
        pairs = []
        for _ in track(range(options.pairs), "Loading in turn", console=console):
            plain = _cpu_us(up, PLAIN, options.seconds, CONNECTIONS, 1)
            nested = _cpu_us(up, program, options.seconds, CONNECTIONS, options.calls)
            pairs.append({"plain": plain, "nested": nested, "ratio": nested / plain})
    figures = {name: median(pair[name] for pair in pairs) for name in ("plain", "nested", "ratio")}
    console.print({name: round(value, 2) for name, value in figures.items()})
    report = {**figures, "ratio": {"cpu_us_per_call": figures["ratio"]}, "pairs": pairs}
    report["calls_per_program"] = options.calls
    return judged(report, "CPU of a nested call ÷ plain call", MAX_RATIO, "nested-calls")


def _cpu_us(
    up: Gateway, call: tuple[str, dict[str, Any]], seconds: float, connections: int, calls: int
) -> float:
    """Return the CPU in microseconds of each of the `calls` that a request makes."""
    pids = processes_of(up)
    before = sum(map(cpu_seconds, pids))
    tool, given = call
    seen = call_load(up.endpoint, tool, SECRET, connections, seconds, given)
    quiet(pids)
    used = sum(map(cpu_seconds, pids)) - before
    return used / (float(seen["all_requests"]) * calls) * 1e6


if __name__ == "__main__":
    sys.exit(main())
