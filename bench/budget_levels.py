"""Whole call path with a budget at one level and at four (`make bench-levels`).

The levels are the key, its user, its team and its customer. Everything else is equal: grant, rate
limit, durable intent, settlement and audit. The figure is the median of the pairs.
"""

import argparse
import sys

from figures import keep, met, row, show
from in_turn import compared
from run import echoing, gateway, machine

MAX_RATIO = 1.1  # of the CPU of a call with one budget


def main() -> int:
    """Run the benchmark; return 0 if the demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with (
        echoing() as port,
        gateway("fused", port, 0) as one,
        gateway("fused", port, 0, levels=4) as four,
    ):
        report = compared(one, four, options.pairs, options.seconds, "four")
    ratio = report["ratio"]["cpu_us_per_call"]
    rows = [row("CPU per call, budgets at four levels ÷ one", ratio, "<=", MAX_RATIO)]
    show(rows)
    keep("budget-levels", {"machine": machine(), **report})
    return 0 if met(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
