"""Two gateways loaded in turn, so that other load on the machine affects both."""

import argparse
from statistics import median
from typing import Any

from rich.progress import track

from figures import console, keep, met, row, show
from run import Gateway, counted, machine, processes_of

FIGURES = ("per_second", "cpu_us_per_call")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the number and the duration of the loads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    return parser


def judged(report: dict[str, Any], name: str, max_ratio: float, file: str) -> int:
    """Show and keep a report of `compared`; return 0 if the ratio of CPU per call is low enough."""
    rows = [row(name, report["ratio"]["cpu_us_per_call"], "<=", max_ratio)]
    show(rows)
    keep(file, {"machine": machine(), **report})
    return 0 if met(rows) else 1


def compared(
    plain: Gateway, other: Gateway, pairs: int, seconds: float, name: str
) -> dict[str, Any]:
    """Load both gateways `pairs` times for some seconds each; every answer is checked.

    Return the median of each figure, the ratios other ÷ plain of each pair, and their medians.
    `name` is that of the other gateway in the report.
    """
    seen = [
        _pair(plain, other, seconds, name, turned=bool(number % 2))
        for number in track(range(pairs), "Loading in turn", console=console)
    ]
    ratios = {
        figure: sorted(pair[name][figure] / pair["plain"][figure] for pair in seen)
        for figure in FIGURES
    }
    report = {
        figure: {each: median(pair[each][figure] for pair in seen) for each in ("plain", name)}
        for figure in FIGURES
    }
    console.print(report)
    middle = {figure: median(found) for figure, found in ratios.items()}
    return {**report, "ratio": middle, "ratios": ratios, "pairs": seen}


def _pair(
    plain: Gateway, other: Gateway, seconds: float, name: str, *, turned: bool
) -> dict[str, Any]:
    """Load both gateways once; `turned` loads the other one first."""
    seen = {}
    order = [("plain", plain), (name, other)]
    for each, up in reversed(order) if turned else order:
        found = counted(processes_of(up), up.endpoint, seconds)
        seen[each] = {figure: found[figure] for figure in FIGURES}
    return seen
