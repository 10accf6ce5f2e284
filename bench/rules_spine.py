"""Whole call path with and without a hundred Cedar rules (`make bench-rules`).

The figure is the median of the pairs.
"""

import sys

from in_turn import arguments, compared, judged
from run import echoing, gateway

MAX_RATIO = 1.15  # of the CPU of a call without rules


def main() -> int:
    """Run the benchmark; return 0 if the demand holds."""
    parser = arguments(__doc__)
    parser.add_argument("--rules", type=int, default=100)
    options = parser.parse_args()
    with (
        echoing() as port,
        gateway("fused", port, 0) as plain,
        gateway("fused", port, options.rules) as ruled,
    ):
        report = compared(plain, ruled, options.pairs, options.seconds, "ruled")
    report["rules"] = options.rules
    return judged(report, "CPU per call, with rules ÷ without", MAX_RATIO, "rules-spine")


if __name__ == "__main__":
    sys.exit(main())
