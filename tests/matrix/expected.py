"""Known failures with their reasons: expected.yml, `client / server / action: reason`."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import yaml

from matrix.drivers.report import FAILED

_FILE = Path(__file__).with_name("expected.yml")


class CheckedCell(Protocol):
    """The part of a cell that this module uses."""

    @property
    def subject(self) -> str:
        """The name."""

    @property
    def outcome(self) -> str:
        """The result."""

    @property
    def detail(self) -> str:
        """The result in words."""


@dataclass(frozen=True)
class Expected:
    """Patterns of cells (`*` matches anything) with the reason for the failure."""

    reasons: dict[str, str]

    @classmethod
    def read(cls) -> "Expected":
        """Read expected.yml."""
        return cls(yaml.safe_load(_FILE.read_text()) or {})

    def reason(self, cell: CheckedCell) -> str:
        """Return the reason of an expected failure; empty if the cell should pass."""
        for pattern, reason in self.reasons.items():
            if fnmatchcase(cell.subject, pattern):
                return reason
        return ""

    def complaints(self, cells: Sequence[CheckedCell], *, whole: bool) -> list[str]:
        """Return unexpected failures and, after a whole run, unused expectations."""
        failed = [cell for cell in cells if cell.outcome == FAILED]
        found = [f"{cell.subject}: {cell.detail}" for cell in failed if not self.reason(cell)]
        if whole:
            found += [
                f"{pattern} does not fail any more: take it out of expected.yml"
                for pattern in self.reasons
                if not any(fnmatchcase(cell.subject, pattern) for cell in failed)
            ]
        return found
