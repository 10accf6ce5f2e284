"""The lines of the scorecard, read from lines.toml."""

import tomllib
from pathlib import Path

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError

ROOT = Path(__file__).resolve().parents[2]
LINES = Path(__file__).with_name("lines.toml")
WHOLE = ("libs", "services")
TEST_RUNS = "scorecard"  # the prefix of the results that `--run` stores


class ScorecardError(Exception):
    """The list or a stored result is malformed."""


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number: where the stored results have it, and what is demanded of it."""

    name: str
    path: str  # JMESPath of the number in a stored result
    demand: str  # "<= 0", ">= 500"
    results: str = ""  # prefix of files in bench/results; that of the line if empty
    where: str = ""  # JMESPath that is true in the results that count; that of the line if empty

    def meets(self, value: float) -> bool:
        """Return whether the value meets the demand."""
        sign, limit = self.demand.split()
        return value <= float(limit) if sign == "<=" else value >= float(limit)


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the requirements of a line: the tests that prove it, or why none does."""

    id: str
    demand: str
    tests: tuple[str, ...] = ()
    unproved: str = ""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line: a demand, how it is measured, and what its figures do not cover."""

    id: str
    demand: str
    command: str = ""
    results: str = ""
    where: str = ""
    run: str = ""  # JMESPath of the seconds that the run took; `seconds` if empty
    code: tuple[str, ...] = WHOLE  # the measured code: a later change makes the figure stale
    tests: tuple[str, ...] = ()  # tests that `--run` runs and counts
    requirements: tuple[Requirement, ...] = ()  # with tests of their own
    unmeasured: str = ""  # what the figures do not cover, and why
    figures: tuple[Figure, ...] = ()

    @property
    def all_tests(self) -> list[str]:
        """The tests of the line and of its requirements, each once."""
        of_requirements = (test for each in self.requirements for test in each.tests)
        return [*dict.fromkeys((*self.tests, *of_requirements))]

    def every(self) -> list[Figure]:
        """Return the figures with their sources, and those of the line's tests."""
        own = [
            msgspec.structs.replace(
                each,
                results=each.results or self.results,
                where=each.where or ("" if each.results else self.where),
            )
            for each in self.figures
        ]
        return [*own, *(_figures_of_tests(self.id) if self.all_tests else ())]


def _figures_of_tests(line: str) -> tuple[Figure, Figure]:
    return (
        Figure("tests passed", f"lines.{line}.passed", ">= 1", TEST_RUNS, f"lines.{line}"),
        Figure("not passed", f"lines.{line}.not_passed", "<= 0", TEST_RUNS, f"lines.{line}"),
    )


def lines(path: Path = LINES) -> list[Line]:
    """Return the lines in their order."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text())["line"], list[Line])
        for each in found:
            _check(each)
    except (tomllib.TOMLDecodeError, KeyError, ValueError, JMESPathError) as error:
        raise ScorecardError(f"{path.name}: {error}. Correct the file.") from error
    return found


def _check(line: Line) -> None:
    for each in line.requirements:
        if bool(each.tests) == bool(each.unproved):
            raise ScorecardError(f"{line.id}, {each.id}: add tests, or say in `unproved` why not")
    if not line.every() and not line.unmeasured:
        raise ScorecardError(f"{line.id} has no figure: add one, or say in `unmeasured` why not")
    for figure in line.every():
        jmespath.compile(figure.path)
        sign, limit = figure.demand.split()
        if sign not in ("<=", ">=") or not figure.results:
            raise ScorecardError(f"{line.id}, {figure.name}: needs results and `<= N` or `>= N`")
        float(limit)
