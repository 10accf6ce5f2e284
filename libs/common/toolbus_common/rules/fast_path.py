"""Detection of conditions that are certainly false, without the Cedar engine.

Only a certain false is used. Cedar evaluates all other conditions. A property test compares this
module with the engine on random policies and calls.
"""

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any, Final

from toolbus_common.rules.parser import Expr

Context = Mapping[str, Any]
Value = Callable[[Context], Any]
UNSURE: Final = object()

_SCALARS = (str, bool, int)
_ORDER = {"<": lt, "<=": le, ">": gt, ">=": ge}


def plainly_not(conditions: list[Expr]) -> Callable[[Context], bool]:
    """Return a function that returns True if one of the conditions is certainly false.

    The function returns False if any condition before the first false condition is undecided.
    """
    values = [_compiled(each) for each in conditions]

    def is_no(context: Context) -> bool:
        for value in values:
            holds = value(context)
            if holds is not True:
                return holds is False
        return False

    return is_no


def _compiled(expr: Expr) -> Value:
    (operator, operands), *others = expr.items()
    make = _MAKERS.get(operator)
    return _unsure if make is None or others else make(operands)


def _unsure(_context: Context) -> Any:
    return UNSURE


def _constant(value: Any) -> Value:
    known = value if isinstance(value, _SCALARS) else UNSURE
    return lambda _context: known


def _variable(name: str) -> Value:
    return (lambda context: context) if name == "context" else _unsure


def _set(members: list[Expr]) -> Value:
    values = [each.get("Value", UNSURE) for each in members]
    known = values if all(isinstance(each, _SCALARS) for each in values) else UNSURE
    return lambda _context: known


def _attribute(operands: Expr) -> Value:
    base, name = _compiled(operands["left"]), operands["attr"]

    def value(context: Context) -> Any:
        record = base(context)
        return record.get(name, UNSURE) if isinstance(record, dict) else UNSURE

    return value


def _has(operands: Expr) -> Value:
    base, name = _compiled(operands["left"]), operands["attr"]

    def value(context: Context) -> Any:
        record = base(context)
        return name in record if isinstance(record, dict) else UNSURE

    return value


def _equal(operands: Expr, *, wanted: bool = True) -> Value:
    left, right = _compiled(operands["left"]), _compiled(operands["right"])

    def value(context: Context) -> Any:
        one, other = left(context), right(context)
        if isinstance(one, _SCALARS) and isinstance(other, _SCALARS):
            return _same(one, other) is wanted
        return UNSURE

    return value


def _ordered(operator: str) -> Callable[[Expr], Value]:
    def make(operands: Expr) -> Value:
        left, right = _compiled(operands["left"]), _compiled(operands["right"])

        def value(context: Context) -> Any:
            one, other = left(context), right(context)
            whole = type(one) is int and type(other) is int
            return _ORDER[operator](one, other) if whole else UNSURE

        return value

    return make


def _both(operands: Expr, *, until: bool = False) -> Value:
    """Compile the operands of `&&` or `||`.

    `until` is the value that ends the evaluation: False for `&&`, True for `||`.
    """
    left, right = _compiled(operands["left"]), _compiled(operands["right"])

    def value(context: Context) -> Any:
        one = left(context)
        if one is until:
            return until
        other = right(context) if one is (not until) else UNSURE
        return other if isinstance(other, bool) else UNSURE

    return value


def _not(operands: Expr) -> Value:
    inner = _compiled(operands["arg"])

    def value(context: Context) -> Any:
        holds = inner(context)
        return not holds if isinstance(holds, bool) else UNSURE

    return value


def _contains(operands: Expr) -> Value:
    members, wanted = _compiled(operands["left"]), _compiled(operands["right"])

    def value(context: Context) -> Any:
        among, one = members(context), wanted(context)
        if not isinstance(among, list) or not isinstance(one, _SCALARS):
            return UNSURE
        return any(_same(each, one) for each in among)

    return value


def _like(operands: Expr) -> Value:
    base, parts = _compiled(operands["left"]), _parts(operands["pattern"])

    def value(context: Context) -> Any:
        text = base(context)
        return _matches(text, parts) if isinstance(text, str) else UNSURE

    return value


def _parts(pattern: list[Any]) -> list[str]:
    """Return the texts of a pattern between its wildcards, including both ends."""
    parts = [""]
    for each in pattern:
        if each == "Wildcard":
            parts.append("")
        else:
            parts[-1] += each["Literal"]
    return parts


def _matches(text: str, parts: list[str]) -> bool:
    """Return whether a text matches a pattern with these parts, without backtracking."""
    first, *rest = parts
    if not rest:
        return text == first
    *middle, last = rest
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


_MAKERS: dict[str, Callable[[Any], Value]] = {
    "Value": _constant,
    "Var": _variable,
    "Set": _set,
    ".": _attribute,
    "has": _has,
    "==": _equal,
    "!=": lambda operands: _equal(operands, wanted=False),
    **{operator: _ordered(operator) for operator in _ORDER},
    "&&": _both,
    "||": lambda operands: _both(operands, until=True),
    "!": _not,
    "contains": _contains,
    "like": _like,
}
