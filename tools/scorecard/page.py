"""Renderer of the scorecard's page, docs/explanation/scorecard.md."""

import re
from collections.abc import Iterable

from scorecard.history import commit_of, stale
from scorecard.lines import ROOT, Line
from scorecard.results import Card, Measured

PAGE = ROOT / "docs" / "explanation" / "scorecard.md"
SHORT = 120  # seconds
INTRODUCTION = """# Scorecard

What the project demands of itself, one line each: R is reliability, S security, A the audit
record. `make scorecard` prints the lines with their newest figures from `bench/results`;
`ARGS=--write` also writes this page. `ARGS=--run` first runs the lines that tests measure
(minutes), `ARGS="--run S5"` one of them. The other commands take from a minute to hours. The list
is `tools/scorecard/lines.toml`.

- **met in part**: the figures meet the demand, and the last section says what they do not cover.
- **stale**: the measured code has changed since the run, or the run is older than 30 days. The
  page has the state in which it was written.
- A run that did not name its commit has the one that stored its result.

"""
HEAD = "| line | demand | measured by | result | figures | run |\n|---|---|---|---|---|---|\n"
FIGURES = re.compile(r"(?m)^(\| \w+ \|[^|]*\|[^|]*\|).*$")


def text(cards: list[Card]) -> str:
    """Return the page."""
    rows = "".join(map(_row, cards))
    remarks = (f"- {each.line.id}: {each.line.unmeasured}\n" for each in cards)
    remarks = (line for line, each in zip(remarks, cards, strict=True) if each.line.unmeasured)
    page = f"{INTRODUCTION}{HEAD}{rows}\n## What the figures do not cover\n\n{''.join(remarks)}"
    return page + "".join(_requirements(each.line) for each in cards if each.line.requirements)


def without_figures(page: str) -> str:
    """Return a page with the first three columns of its table only."""
    return FIGURES.sub(r"\1", page)


def shown(figures: Iterable[Measured]) -> list[str]:
    """Return each figure with its name, and the demand that it misses."""
    return [
        f"{each.figure.name}: {_number(each.value)}"
        + (f" (demand {each.figure.demand})" if each.is_missed else "")
        for each in figures
    ]


def runs(card: Card) -> list[str]:
    """Return date, commit and length of each run that the figures are from."""
    lengths = {each.result.path: each.seconds for each in card.figures if each.result}
    return [
        f"{each.at:%Y-%m-%d}, {commit_of(each)}, {_length(lengths[each.path])}"
        for each in card.results
    ]


def _row(card: Card) -> str:
    line, figures = card.line, "; ".join(shown(card.figures))
    command = f"`{line.command}`" if line.command else ""
    verdict = f"**{card.verdict}**" if card.verdict == "missed" else card.verdict
    why = stale(card)
    run = "; ".join([*runs(card), *([f"**stale**: {why}"] if why else [])])
    return f"| {line.id} | {line.demand} | {command} | {verdict} | {figures} | {run} |\n"


def _requirements(line: Line) -> str:
    proved = [each for each in line.requirements if each.tests]
    head = (
        f"\n## Requirements of {line.id}\n\n{len(proved)} of {len(line.requirements)} have tests.\n"
    )
    rows = "".join(
        f"- **{each.id}** {each.demand}: "
        + (", ".join(f"`{test}`" for test in each.tests) or each.unproved)
        + "\n"
        for each in line.requirements
    )
    return f"{head}\n{rows}"


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def _length(seconds: float | None) -> str:
    if seconds is None:
        return "length not recorded"
    return f"{seconds:.0f} s" if seconds < SHORT else f"{seconds / 60:.0f} min"
