"""Expressions of RE2: their time is linear in the text, whatever it contains (no I/O)."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import re2

_MEMORY = 64 * 1024 * 1024  # of the state machines of an expression
_COUNT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_SHORT_COUNT, _LONG_COUNT = 8, 16


def compiled(expression: str, *, captures: bool = True) -> Any:
    """Return a compiled expression for bytes."""
    options = _options()
    options.never_capture = not captures
    return re2.compile(expression.encode(), options)


def compiled_set(expressions: Sequence[str]) -> Any:
    """Return a set of expressions, which finds in one pass those that match in a text."""
    found = re2.Set.SearchSet(_options())
    for each in expressions:
        found.Add(each.encode())
    if expressions:
        found.Compile()
    return found


_Item = TypeVar("_Item")


def selected(items: Sequence[_Item], numbers: list[int] | None) -> Sequence[_Item]:
    """Return the items with these numbers; all items if there are no numbers."""
    return [items[each] for each in sorted(numbers)] if numbers else items


def any_of(expressions: Sequence[str]) -> str:
    """Return an expression that matches if one of the expressions matches."""
    return "|".join(f"(?:{each})" for each in expressions)


def shortened(expression: str) -> str:
    """Return an expression without long repetition counts; it matches at least the same texts.

    The state machine of an expression with long counts has too many states.
    """
    return _COUNT.sub(_shortened_count, expression)


def _shortened_count(found: re.Match[str]) -> str:
    least, most = int(found[1]), int(found[2] or 0)
    return found[0] if max(least, most) <= _LONG_COUNT else f"{{{min(least, _SHORT_COUNT)},}}"


def _options() -> Any:
    options = re2.Options()
    options.max_mem = _MEMORY
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return options
