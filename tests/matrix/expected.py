"""What is known to fail, and why: expected.yml, `client / server / action: reason`."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import yaml

from matrix.drivers.telling import FAILED

_FILE = Path(__file__).with_name("expected.yml")


class Judged(Protocol):
    """A cell, as far as this module looks."""

    @property
    def subject(self) -> str:
        """Its name."""

    @property
    def outcome(self) -> str:
        """What came of it."""

    @property
    def detail(self) -> str:
        """In words."""


@dataclass(frozen=True)
class Expected:
    """Patterns of cells (`*` stands for anything) and the reason each of them fails."""

    reasons: dict[str, str]

    @classmethod
    def read(cls) -> "Expected":
        """From expected.yml."""
        return cls(yaml.safe_load(_FILE.read_text()) or {})

    def reason(self, cell: Judged) -> str:
        """Why a cell fails; empty when it should not."""
        for pattern, reason in self.reasons.items():
            if fnmatchcase(cell.subject, pattern):
                return reason
        return ""

    def complaints(self, cells: Sequence[Judged], *, whole: bool) -> list[str]:
        """Failures nobody expects and, after a whole run, expectations that nothing meets."""
        failed = [cell for cell in cells if cell.outcome == FAILED]
        found = [f"{cell.subject}: {cell.detail}" for cell in failed if not self.reason(cell)]
        if whole:
            found += [
                f"{pattern} does not fail any more: take it out of expected.yml"
                for pattern in self.reasons
                if not any(fnmatchcase(cell.subject, pattern) for cell in failed)
            ]
        return found
