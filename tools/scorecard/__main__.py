"""Script that prints the scorecard: `make scorecard`."""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from scorecard.history import stale
from scorecard.lines import ScorecardError, lines
from scorecard.page import PAGE, runs, shown, text
from scorecard.results import Card, card

STYLES = {"missed": "bold red", "not measured": "yellow", "met in part": "cyan"}


def main() -> int:
    """Print every line; return 2 only if the list or a stored result is malformed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run", nargs="*", metavar="LINE", help="first run the tests of these lines, or of all"
    )
    parser.add_argument("--write", action="store_true", help=f"also write {PAGE.name}")
    options = parser.parse_args()
    try:
        every = lines()
        if options.run is not None:
            from scorecard.runs import run  # noqa: PLC0415 - needs what only the tests need

            run(each for each in every if each.all_tests and each.id in (options.run or each.id))
        cards = [card(each) for each in every]
    except ScorecardError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    _show(cards)
    if options.write:
        PAGE.write_text(text(cards))
    return 0


def _show(cards: list[Card]) -> None:
    table = Table("line", "result", "figures", "date, commit, length of the run", "stale")
    for each in cards:
        style = STYLES.get(each.verdict, "green")
        figures = "\n".join(shown(each.figures)) or each.line.unmeasured
        row = (f"[{style}]{each.verdict}[/]", figures, "\n".join(runs(each)), stale(each))
        table.add_row(each.line.id, *row)
    console = Console()
    console.print(table)
    counts = {each.verdict: 0 for each in cards}
    for each in cards:
        counts[each.verdict] += 1
    console.print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
