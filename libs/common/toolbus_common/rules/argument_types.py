"""Inference of the arguments that a policy reads, and of their types, from its expressions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.rules.expression_reads import ARGUMENTS, path_of
from toolbus_common.rules.parser import Expr

Type = dict[str, Any]  # in the form of Cedar's JSON schema

LONG: Type = {"type": "Long"}
TEXT: Type = {"type": "String"}
TRUTH: Type = {"type": "Boolean"}
_ORDER = ("<", "<=", ">", ">=")
_ARITHMETIC = ("+", "-", "*")
_LOGIC = ("&&", "||")
_SETS = ("containsAll", "containsAny")
_RESULTS: dict[str, Type] = {
    **dict.fromkeys((*_ARITHMETIC, "neg"), LONG),
    **dict.fromkeys((*_LOGIC, *_ORDER, *_SETS, "!", "==", "!=", "has", "like", "contains"), TRUTH),
}
_CONTEXT: dict[tuple[str, ...], Type] = {
    ("cost",): LONG,
    ("family",): TEXT,
    ("run", "has_read_private"): TRUTH,
    ("run", "has_read_untrusted"): TRUTH,
    ("model", "alias"): TEXT,
    ("model", "region"): TEXT,
    ("model", "labels"): {"type": "Set", "element": TEXT},
    ("model", "sampled_by"): TEXT,
    ("model", "stream"): TRUTH,
    **{("model", part): LONG for part in ("input", "output", "tools")},
    **{("time", part): LONG for part in ("epoch", "hour", "weekday")},
}


def set_of(element: Type) -> Type:
    """Return the type of a set with these elements."""
    return {"type": "Set", "element": element}


def record_of(attributes: dict[str, Type]) -> Type:
    """Return the type of a record with these attributes."""
    return {"type": "Record", "attributes": attributes}


@dataclass(slots=True)
class Shape:
    """The inferred shape of an argument.

    `implied` is the type that a use of the argument implies, if any does. `inside` contains the
    members of the argument that are read.
    """

    implied: Type | None = None
    inside: "dict[str, Shape]" = field(default_factory=dict)

    @property
    def as_type(self) -> Type:
        """The Cedar type of the argument; text if no use implies a type."""
        if self.inside:
            inner = {name: each.as_type | {"required": False} for name, each in self.inside.items()}
            return record_of(inner)
        return self.implied or TEXT

    def at(self, path: tuple[str, ...]) -> "Shape":
        """Return the shape at a path inside this one. Missing shapes are created."""
        shape = self
        for name in path:
            shape = shape.inside.setdefault(name, Shape())
        return shape


def arguments_of(conditions: list[Expr]) -> Type:
    """Return the record type that contains all arguments that the conditions read."""
    arguments = Shape()
    for condition in conditions:
        _note(arguments, condition, TRUTH)
    return arguments.as_type if arguments.inside else record_of({})


def _note(arguments: Shape, expr: Expr, wanted: Type | None) -> None:
    path = path_of(expr)
    if path is not None:
        if path[:1] == (ARGUMENTS,) and len(path) > 1:
            shape = arguments.at(path[1:])
            shape.implied = shape.implied or wanted
        return
    for part, implied in _parts(expr, wanted):
        _note(arguments, part, implied)
    if isinstance(expr, dict) and "has" in expr:
        path = path_of(expr["has"]["left"])
        if path is not None and path[:1] == (ARGUMENTS,):
            arguments.at((*path[1:], expr["has"]["attr"]))


def _parts(expr: Expr, wanted: Type | None) -> Iterator[tuple[Expr, Type | None]]:
    """Yield the operands of an expression, each with the type that its position implies."""
    if isinstance(expr, list):
        yield from ((each, wanted) for each in expr)
        return
    if not isinstance(expr, dict):
        return
    for operator, operands in expr.items():
        if isinstance(operands, dict) and {"left", "right"} <= operands.keys():
            left, right = operands["left"], operands["right"]
            yield from zip((left, right), _implied(operator, left, right), strict=True)
        elif operator == "if-then-else":
            yield operands["if"], TRUTH
            yield operands["then"], wanted
            yield operands["else"], wanted
        else:
            implied = _OF_ONE.get(operator)
            inner = operands.get("arg", operands.get("left")) if implied else None
            yield (inner, implied) if inner is not None else (_values(operands), None)


_OF_ONE = {"!": TRUTH, "neg": LONG, "like": TEXT, "isEmpty": set_of(TEXT)}


def _values(operands: Any) -> Any:
    return list(operands.values()) if isinstance(operands, dict) else operands


def _implied(operator: str, left: Expr, right: Expr) -> tuple[Type | None, Type | None]:
    if operator in _LOGIC:
        return TRUTH, TRUTH
    if operator in _ARITHMETIC:
        return LONG, LONG
    if operator in _ORDER:
        return type_of(right) or LONG, type_of(left) or LONG
    if operator == "contains":
        of_left = type_of(left) or {}
        return set_of(type_of(right) or TEXT), of_left.get("element")
    if operator in _SETS:
        return type_of(right) or set_of(TEXT), type_of(left) or set_of(TEXT)
    return type_of(right), type_of(left)


def type_of(expr: Expr) -> Type | None:
    """Return the type of an expression; None if it depends on arguments or is not known."""
    if not isinstance(expr, dict):
        return None
    (operator, operands), *_ = expr.items()
    if operator == "Value":
        return _OF_VALUES.get(type(operands))
    if operator == "Set":
        return set_of(next(filter(None, map(type_of, operands)), TEXT))
    if operator in _RESULTS:
        return _RESULTS[operator]
    path = path_of(expr)
    return _of_entity(expr) if path is None else _CONTEXT.get(path)


_OF_VALUES: dict[type, Type] = {bool: TRUTH, int: LONG, str: TEXT}


def _of_entity(expr: Expr) -> Type | None:
    attribute = expr["."]["attr"] if "." in expr else ""
    return {"price": LONG, "labels": set_of(TEXT), "reads": set_of(TEXT), "": None}.get(
        attribute, TEXT
    )
