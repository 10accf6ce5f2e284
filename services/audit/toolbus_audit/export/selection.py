"""Row selections of `events`: SQL conditions with bound values (no I/O)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.contracts.queries.sql_text import like

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Selection:
    """SQL condition; values are parameters and never part of its text."""

    condition: str = "1"
    parameters: Parameters = field(default_factory=dict)

    def and_(self, condition: str, **parameters: Any) -> "Selection":
        """Return the conjunction with another condition."""
        return Selection(f"{self.condition} AND {condition}", self.parameters | parameters)


def select_events(events: Sequence[str] = (), customers: Sequence[str] = ()) -> Selection:
    """Return the selection of events by name patterns and customers; empty means all."""
    selection = Selection()
    if events and "*" not in events:
        selection = _any(selection, "event LIKE", "f", [like(pattern) for pattern in events])
    if customers:
        selection = _any(selection, "customer =", "c", list(customers))
    return selection


def _any(selection: Selection, test: str, letter: str, values: list[str]) -> Selection:
    named = {f"{letter}{at}": value for at, value in enumerate(values)}
    tests = " OR ".join(f"{test} {{{name}:String}}" for name in named)
    return selection.and_(f"({tests})", **named)
