"""Whole call path with and without a hundred Cedar rules (`make bench-rules`).

The figure is the median of the pairs.
"""

import argparse
import sys

from figures import keep, met, row, show
from in_turn import compared
from run import echoing, gateway, machine

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
        gateway("fused", port, 0) as plain,
        gateway("fused", port, options.rules) as ruled,
    ):
        report = compared(plain, ruled, options.pairs, options.seconds, "ruled")
    ratio = report["ratio"]["per_second"]
    rows = [row("calls per second with rules ÷ without", ratio, ">=", MIN_RATIO)]
    show(rows)
    keep("rules-spine", {"machine": machine(), "rules": options.rules, **report})
    return 0 if met(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
