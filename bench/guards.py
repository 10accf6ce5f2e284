"""Guards: cost per KB, precision and recall, and attacks through the gateway (`make bench-guards`).

Each part stores its newest figures in bench/results/guards-<part>.json, with the machine's load.
docs/explanation/guard-figures.md is written from these files; `--page` does only that.
"""

import argparse
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from figures import Row, load, met, show
from guarded import attacks, cost, dojo, page, quality, through

ROWS: dict[str, Callable[[Any], list[Row]]] = {
    "cost": cost.rows,
    "gateway": through.rows,
    "quality": quality.rows,
    "scenarios": dojo.rows,
    "attacks": attacks.rows,
}
SETS = Path(__file__).parents[1] / "build" / "guard-sets"


def main() -> int:
    """Run the parts; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=page.PARTS, action="append")
    parser.add_argument("--sets", type=Path, default=SETS, help="directory of the public sets")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each load")
    parser.add_argument("--most", type=int, default=0, help="combinations of each suite; 0: all")
    parser.add_argument("--variant", choices=dojo.VARIANTS, action="append")
    parser.add_argument("--attack", choices=dojo.ATTACKS, action="append")
    parser.add_argument("--minutes", type=float, default=inf, help="most time for each variant")
    options = parser.parse_args()
    if options.page:
        page.write(page.stored())
        return 0
    variants = {
        name: options.attack or attacks
        for name, attacks in dojo.PLAN.items()
        if name in (options.variant or dojo.PLAN)
    }
    measure: dict[str, Callable[[], Any]] = {
        "cost": cost.measured,
        "gateway": lambda: through.measured(options.rounds, options.seconds),
        "quality": lambda: quality.measured(options.sets),
        "scenarios": lambda: dojo.measured(options.most, variants, options.minutes * 60),
        "attacks": attacks.measured,
    }
    every: list[Row] = []
    for part in options.only or page.PARTS:
        before = load()
        figures = measure[part]()
        rows = ROWS[part](figures)
        show(rows)
        every += rows
        page.keep(part, {"figures": figures, "rows": rows, "before": before, "after": load()})
        page.write(page.stored())
    return 0 if met(every) else 1


if __name__ == "__main__":
    raise SystemExit(main())
