"""Runs of the tests that measure lines of the scorecard."""

from collections.abc import Iterable
from typing import Any

import pytest

from figures import keep
from scorecard.lines import ROOT, TEST_RUNS, Line


class _Counts:
    """A pytest plugin that counts the outcomes of the tests of each file."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test when it has run, failed in its setup or teardown, or was skipped."""
        counts = self.files.setdefault(
            report.nodeid.partition("::")[0], {"passed": 0, "not_passed": 0, "seconds": 0.0}
        )
        counts["seconds"] += report.duration
        if report.when == "call" or not report.passed:
            counts["passed" if report.passed else "not_passed"] += 1


def run(lines: Iterable[Line]) -> None:
    """Run the tests of these lines, and store how many passed for each line."""
    found = {}
    for line in lines:
        counts = _Counts()
        paths = [str(ROOT / each) for each in line.all_tests]
        pytest.main(["-q", "-p", "no:cacheprovider", *paths], [counts])
        found[line.id] = _sum(counts.files.values())
    keep(TEST_RUNS, {"lines": found})


def _sum(files: Iterable[dict[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = {"passed": 0, "not_passed": 0, "seconds": 0.0}
    for counts in files:
        total = {name: round(total[name] + counts[name], 1) for name in total}
    return total
