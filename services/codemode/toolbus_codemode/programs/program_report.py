"""What a program of a run has used, in the `_meta` of its result. Only codemode writes it.

A program's output is text in `content`, so that no program can write a report.
"""

from typing import Any

import msgspec
from msgspec import Struct, field

REPORT = "toolbus/program"


class ProgramReport(Struct, frozen=True):
    """The amount that a program has spent, in micro-dollars, and its calls by full name."""

    spent: int = 0
    by_tool: dict[str, int] = field(default_factory=dict)

    def added(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return a result with this report."""
        return {**result, "_meta": {REPORT: msgspec.to_builtins(self)}}


def report_of(result: dict[str, Any]) -> ProgramReport | None:
    """Return the report in a result of codemode; None if it has none."""
    meta = result.get("_meta")
    found = meta.get(REPORT) if isinstance(meta, dict) else None
    return None if found is None else msgspec.convert(found, ProgramReport)
