"""Whole call path with and without a hundred Cedar rules (`make bench-rules`).

Two gateways run side by side and are loaded in turn, for a few seconds each, so that other load on
the machine affects both. Every answer is checked. The figure is the median of the pairs.
"""

import argparse
import sys
from statistics import median
from typing import Any

from rich.progress import track

from figures import console, keep, met, row, show
from run import Gateway, counted, echoing, gateway, machine, processes_of

MIN_RATIO = 0.9  # of the calls per second without rules


def main() -> int:
    """Run the benchmark; return 0 if the demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with (
        echoing() as port,
        gateway("fused", port, 0) as without,
        gateway("fused", port, options.rules) as ruled,
    ):
        pairs = [
            _pair(without, ruled, options.seconds, turned=bool(number % 2))
            for number in track(range(options.pairs), "Loading in turn", console=console)
        ]
    figures = {
        name: {each: median(pair[name][each] for pair in pairs) for each in ("without", "ruled")}
        for name in ("per_second", "cpu_us_per_call")
    }
    ratios = sorted(pair["per_second"]["ruled"] / pair["per_second"]["without"] for pair in pairs)
    report = {
        "machine": machine(),
        "rules": options.rules,
        **figures,
        "ratio": median(ratios),
        "ratios": ratios,
        "pairs": pairs,
    }
    console.print({name: report[name] for name in ("per_second", "cpu_us_per_call")})
    rows = [row("calls per second with rules ÷ without", report["ratio"], ">=", MIN_RATIO)]
    show(rows)
    keep("rules-spine", report)
    return 0 if met(rows) else 1


def _pair(without: Gateway, ruled: Gateway, seconds: float, *, turned: bool) -> dict[str, Any]:
    """Load both gateways once; `turned` loads the one with rules first."""
    seen = {}
    order = [("without", without), ("ruled", ruled)]
    for name, up in reversed(order) if turned else order:
        seen[name] = counted(processes_of(up), up.endpoint, seconds)
    return {
        figure: {name: each[figure] for name, each in seen.items()}
        for figure in ("per_second", "cpu_us_per_call")
    }


if __name__ == "__main__":
    sys.exit(main())
