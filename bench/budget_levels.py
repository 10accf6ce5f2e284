"""Whole call path with a budget at one level and at four (`make bench-levels`).

The levels are the key, its user, its team and its customer. Everything else is equal: grant, rate
limit, durable intent, settlement and audit. The figure is the median of the pairs.
"""

import sys

from in_turn import arguments, compared, judged
from run import echoing, gateway

MAX_RATIO = 1.1  # of the CPU of a call with one budget


def main() -> int:
    """Run the benchmark; return 0 if the demand holds."""
    options = arguments(__doc__).parse_args()
    with (
        echoing() as port,
        gateway("fused", port, 0) as one,
        gateway("fused", port, 0, levels=4) as four,
    ):
        report = compared(one, four, options.pairs, options.seconds, "four")
    name = "CPU per call, budgets at four levels ÷ one"
    return judged(report, name, MAX_RATIO, "budget-levels")


if __name__ == "__main__":
    sys.exit(main())
