"""Which rows of `events` are taken out, as a condition in SQL with its values apart. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.contracts.queries.sql_text import like

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Selection:
    """A condition; no value is ever part of its text."""

    condition: str = "1"
    parameters: Parameters = field(default_factory=dict)

    def and_(self, condition: str, **parameters: Any) -> "Selection":
        """The rows of these that fulfil another one as well."""
        return Selection(f"{self.condition} AND {condition}", self.parameters | parameters)


def of(events: Sequence[str] = (), customers: Sequence[str] = ()) -> Selection:
    """Events whose names fit one of the patterns, of these customers; none named are all."""
    chosen = Selection()
    if events and "*" not in events:
        chosen = _any(chosen, "event LIKE", "f", [like(pattern) for pattern in events])
    if customers:
        chosen = _any(chosen, "customer =", "c", list(customers))
    return chosen


def _any(chosen: Selection, test: str, letter: str, values: list[str]) -> Selection:
    named = {f"{letter}{at}": value for at, value in enumerate(values)}
    tests = " OR ".join(f"{test} {{{name}:String}}" for name in named)
    return chosen.and_(f"({tests})", **named)
