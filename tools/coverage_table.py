"""Script that prints the line coverage of each package by the unit tests: `make coverage`.

Only lines that run in the test process are counted; child processes (the sandbox, commands) are not
measured.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

PACKAGES = ("ingress", "policy", "executor", "codemode", "audit", "oauth", "common", "cli")


def main(report: Path) -> None:
    """Print the table of a coverage report in JSON form."""
    statements: dict[str, int] = defaultdict(int)
    covered: dict[str, int] = defaultdict(int)
    for path, measured in json.loads(report.read_text())["files"].items():
        summary = measured["summary"]
        for package in (_package(path), "total"):
            statements[package] += summary["num_statements"]
            covered[package] += summary["covered_lines"]
    print(f"{'package':<10}{'lines':>8}{'covered':>9}{'share':>9}")  # noqa: T201
    for package in (*PACKAGES, "total"):
        share = covered[package] / max(statements[package], 1)
        print(f"{package:<10}{statements[package]:>8}{covered[package]:>9}{share:>9.1%}")  # noqa: T201


def _package(path: str) -> str:
    """Return the package that contains a module: `cli` for `cli/toolbus_cli/app.py`."""
    name = next(part for part in Path(path).parts if part.startswith("toolbus_"))
    return name.removeprefix("toolbus_")


main(Path(sys.argv[1]))
