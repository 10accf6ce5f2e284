"""Guards: cost per KB, precision and recall, and attacks through the gateway (`make bench-guards`).

Without `--only`, all parts are measured, the results are stored and docs/explanation/
guard-figures.md is written. The machine's load is stored with the figures.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from figures import Row, keep, load, met, show
from guarded import attacks, cost, dojo, page, quality, through

PARTS = ("cost", "gateway", "quality", "scenarios", "attacks")
SETS = Path(__file__).parents[1] / "build" / "guard-sets"


def main() -> int:
    """Run the parts; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--sets", type=Path, default=SETS, help="directory of the public sets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each load")
    parser.add_argument("--most", type=int, default=0, help="combinations of each suite; 0: all")
    options = parser.parse_args()
    parts = options.only or PARTS
    report: dict[str, Any] = {"before": load()}
    rows: list[Row] = []
    if "cost" in parts:
        report["cost"] = cost.measured()
        rows += cost.rows(report["cost"])
    if "gateway" in parts:
        report["gateway"] = through.measured(options.rounds, options.seconds)
        rows += through.rows(report["gateway"])
    if "quality" in parts:
        report["quality"] = quality.measured(options.sets)
        rows += quality.rows(report["quality"])
    if "scenarios" in parts:
        report["scenarios"] = dojo.measured(options.most)
        rows += dojo.rows(report["scenarios"])
    if "attacks" in parts:
        report["attacks"] = attacks.measured()
        rows += attacks.rows(report["attacks"])
    show(rows)
    report |= {"rows": rows, "after": load()}
    keep("guards", report)
    if not options.only:
        page.write(report, datetime.now(UTC))
    return 0 if met(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
