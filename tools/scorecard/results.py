"""The newest stored result of a figure."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from scorecard.lines import ROOT, Figure, Line, ScorecardError

RESULTS = ROOT / "bench" / "results"
STAMP = re.compile(r"-(\d{8}-\d{6})$")


@dataclass(frozen=True)
class Result:
    """A stored result: its file, when it was measured, and its commit, if it names one."""

    path: Path
    at: datetime
    report: dict[str, Any]

    @property
    def commit(self) -> str:
        """The commit that was measured, or an empty text."""
        return str(self.report.get("commit", ""))


@dataclass(frozen=True)
class Measured:
    """A figure and its newest value, if there is one."""

    figure: Figure
    value: float | None = None
    result: Result | None = None
    seconds: float | None = None

    @property
    def is_missed(self) -> bool:
        """Whether there is a value that misses the demand."""
        return self.value is not None and not self.figure.meets(self.value)


@dataclass(frozen=True)
class Card:
    """A line with the newest values of its figures."""

    line: Line
    figures: tuple[Measured, ...] = ()

    @property
    def results(self) -> list[Result]:
        """The stored results that have the values."""
        found = {each.result.path: each.result for each in self.figures if each.result}
        return list(found.values())

    @property
    def verdict(self) -> str:
        """How the figures compare with the demand."""
        values = [each.value for each in self.figures]
        if any(each.is_missed for each in self.figures):
            return "missed"
        if all(each is None for each in values):
            return "not measured"
        return "met in part" if None in values or self.line.unmeasured else "met"


def card(line: Line, folder: Path = RESULTS) -> Card:
    """Return the line with its newest values."""
    return Card(line, tuple(_measured(line, each, folder) for each in line.every()))


def _measured(line: Line, figure: Figure, folder: Path) -> Measured:
    for result in _newest_first(figure.results, folder):
        if figure.where and not jmespath.search(figure.where, result.report):
            continue
        value = _number(figure.path, result.report)
        if value is None:
            raise ScorecardError(
                f"{line.id}, {figure.name}: {result.path.name} has no number at `{figure.path}`. "
                "Correct the path in tools/scorecard/lines.toml."
            )
        return Measured(figure, value, result, _seconds(line, result.report))
    return Measured(figure)


def _seconds(line: Line, report: dict[str, Any]) -> float | None:
    """Return the length of the run, if the report has it."""
    for path in (line.run, f"lines.{line.id}.seconds", "seconds"):
        if path and (seconds := _number(path, report)) is not None:
            return seconds
    minutes = _number("minutes", report)
    return None if minutes is None else 60 * minutes


def _number(path: str, report: dict[str, Any]) -> float | None:
    try:
        found = jmespath.search(path, report)
    except JMESPathError:  # such as the sum of nothing
        return None
    return found if isinstance(found, int | float) else None


def _newest_first(prefix: str, folder: Path) -> list[Result]:
    paths = [*folder.glob(f"{prefix}-2*.json"), *folder.glob(f"{prefix}.json")]
    return sorted(map(_read, paths), key=lambda each: each.at, reverse=True)


@cache
def _read(path: Path) -> Result:
    try:
        report = json.loads(path.read_text())
        stamp = STAMP.search(path.stem)
        at = report.get("at") or datetime.strptime(
            f"{stamp and stamp[1]} +0000", "%Y%m%d-%H%M%S %z"
        )
        at = at if isinstance(at, datetime) else datetime.fromisoformat(at)
    except (ValueError, AttributeError) as error:
        raise ScorecardError(f"{path.name} is not a report with a time: {error}") from error
    return Result(path, at.astimezone(UTC), report)
