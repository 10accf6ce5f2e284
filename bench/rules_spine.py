"""Whole call path with and without a hundred Cedar rules (`make bench-rules`).

The figure is the median of the pairs.
"""

import argparse
import sys

from figures import keep, met, row, show
from in_turn import compared
from run import echoing, gateway, machine

MAX_RATIO = 1.15  # of the CPU of a call without rules


def main() -> int:
    """Run the benchmark; return 0 if the demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with (
        echoing() as port,
        gateway("fused", port, 0) as plain,
        gateway("fused", port, options.rules) as ruled,
    ):
        report = compared(plain, ruled, options.pairs, options.seconds, "ruled")
    ratio = report["ratio"]["cpu_us_per_call"]
    rows = [row("CPU per call, with rules ÷ without", ratio, "<=", MAX_RATIO)]
    show(rows)
    keep("rules-spine", {"machine": machine(), "rules": options.rules, **report})
    return 0 if met(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
