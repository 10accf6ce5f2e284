"""Verdicts: results against the requirements of a leg and its expected failures."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from conformance.suite import Result

EXPECTED = Path(__file__).parent / "expected"
_WIDEST_MESSAGE = 400


@dataclass
class Verdict:
    """One table: a leg at a revision."""

    title: str
    results: list[Result]
    required: frozenset[str]
    expected: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    @property
    def stale(self) -> list[str]:
        """Complaints about expected failures that pass."""
        ran = {result.scenario for result in self.results}
        failing = {name for result in self.results for name in _names(result)}
        return [
            f"stale: {name} is expected to fail and does not"
            for name in self.expected
            if name not in failing and name.partition(":")[0] in ran
        ]

    def demand(self, names: Iterable[str]) -> None:
        """Add a complaint for each required scenario without a result."""
        ran = {result.scenario for result in self.results}
        self.complaints += [f"never ran: {name}" for name in names if name not in ran]

    def compare(self, direct: dict[str, int]) -> None:
        """Fail scenarios with fewer checks than in the direct run: they were not really tested."""
        self.results = [_lacking(result, direct.get(result.scenario, 0)) for result in self.results]

    @property
    def passed(self) -> list[Result]:
        """Scenarios without a failure."""
        return [result for result in self.results if not result.failures]

    @property
    def unexpected(self) -> list[Result]:
        """Scenarios with an unexpected failure."""
        return [result for result in self.results if self._unexpected(result)]

    @property
    def fine(self) -> bool:
        """Whether the table is as expected."""
        return not (self.unexpected or self.complaints or self.stale)

    @property
    def count(self) -> str:
        """The number of passed required scenarios, and the total."""
        required = [result for result in self.results if result.scenario in self.required]
        passed = sum(not result.failures for result in required)
        extra = [result for result in self.results if result.scenario not in self.required]
        also = sum(not result.failures for result in extra)
        more = f", {also}/{len(extra)} beyond" if extra else ""
        return f"{passed}/{len(required)} required{more}"

    def print(self, *, quiet: bool = False) -> None:
        """Print the table and the messages of the failures."""
        print(f"\n{self.title}: {self.count}")
        for result in self.results:
            unexpected = self._unexpected(result)
            if quiet and not result.failures:
                continue
            state = _state(result, unexpected=bool(unexpected))
            kind = "required" if result.scenario in self.required else "-"
            total = result.passed + len(result.failures)
            print(f"  {state:8} {result.scenario:48} {result.passed:3}/{total:<3} {kind}")
            for check, message in result.failures:
                reason = self.expected.get(f"{result.scenario}:{check}")
                reason = reason or self.expected.get(result.scenario)
                text = f"expected: {reason}" if reason else message[:_WIDEST_MESSAGE]
                print(f"             {check}: {text}")
        for complaint in (*self.complaints, *self.stale):
            print(f"  {complaint}")

    def _unexpected(self, result: Result) -> list[str]:
        if result.scenario in self.expected:
            return []
        return [
            check
            for check, _ in result.failures
            if f"{result.scenario}:{check}" not in self.expected
        ]


def expected(leg: str, revision: str) -> dict[str, str]:
    """Return the expected failures, `scenario` or `scenario:check`, each with its reason."""
    file = EXPECTED / f"{leg}-{revision}.yml"
    entries = yaml.safe_load(file.read_text()) if file.exists() else None
    found = {str(name): str(reason or "") for name, reason in (entries or {}).items()}
    for name, reason in found.items():
        if not reason.strip():
            raise ValueError(f"{file.name}: {name} has no reason.")
    return found


def direct_run(revision: str) -> dict[str, int]:
    """Return the number of checks that each scenario passes against the fixture directly."""
    found: dict[str, dict[str, int]] = yaml.safe_load((EXPECTED / "direct.yml").read_text())
    return found[revision]


def _lacking(result: Result, checks: int) -> Result:
    if result.failures or result.passed >= checks:
        return result
    text = f"{result.passed} checks passed, {checks} do in a direct run."
    return replace(result, failures=(("fewer-checks", text),))


def _state(result: Result, *, unexpected: bool) -> str:
    if unexpected:
        return "FAILED"
    if result.failures:
        return "expected"
    return "skipped" if result.empty else "passed"


def _names(result: Result) -> list[str]:
    checks = [f"{result.scenario}:{check}" for check, _ in result.failures]
    return [result.scenario, *checks] if checks else []
