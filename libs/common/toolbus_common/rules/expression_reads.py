"""What an expression of Cedar reads: whether it can be settled before a call's arguments are."""

from collections.abc import Iterator
from typing import Any

from toolbus_common.rules.parser import Expr

# What of the context is the same for every call of a key to a tool.
SETTLED = frozenset({"cost", "family"})
ARGUMENTS = "arguments"
WHOLE: None = None  # of the arguments: all of them


def is_settled(expr: Expr) -> bool:
    """Whether only who asks and for what decides it."""
    return all(read in SETTLED for read in context_read(expr))


def context_read(expr: Expr) -> frozenset[str]:
    """The attributes of the context it reads; `""` when it takes the context as a whole."""
    return frozenset(path[0] if path else "" for path in paths(expr))


def arguments_read(expr: Expr) -> frozenset[str] | None:
    """The arguments it reads, by name; None when it takes them as a whole."""
    names: set[str] = set()
    for path in paths(expr):
        if path[:1] in ((), (ARGUMENTS,)):
            if len(path) < len((ARGUMENTS, "name")):
                return WHOLE
            names.add(path[1])
    return frozenset(names)


def reads_entities(expr: Expr) -> bool:
    """Whether it looks at who asks or for what."""
    entities = (("Var", "principal"), ("Var", "action"), ("Var", "resource"))
    return any(
        node in entities or (node[0] == "Value" and isinstance(node[1], dict))
        for node in _nodes(expr)
    )


def entities_named(expr: Expr) -> Iterator[tuple[str, str]]:
    """The entities it names, as kind and name."""
    if isinstance(expr, dict) and expr.keys() == {"type", "id"}:
        yield expr["type"], expr["id"]
    for _, value in _nodes(expr):
        if isinstance(value, dict) and value.keys() == {"type", "id"}:
            yield value["type"], value["id"]


def paths(expr: Expr) -> Iterator[tuple[str, ...]]:
    """Every chain of attributes that begins at the context, as long as it is plain."""
    path = path_of(expr)
    if path is not None:
        yield path
    elif isinstance(expr, dict):
        if "has" in expr and (base := path_of(expr["has"]["left"])) is not None:
            yield (*base, expr["has"]["attr"])
            return
        for value in expr.values():
            yield from paths(value)
    elif isinstance(expr, list):
        for value in expr:
            yield from paths(value)


def path_of(expr: Expr) -> tuple[str, ...] | None:
    """The attributes from the context down to this, if it is such a chain."""
    attributes: list[str] = []
    while isinstance(expr, dict) and "." in expr:
        attributes.append(expr["."]["attr"])
        expr = expr["."]["left"]
    return tuple(reversed(attributes)) if expr == {"Var": "context"} else None


def _nodes(expr: Expr) -> Iterator[tuple[str, Any]]:
    if isinstance(expr, dict):
        for name, value in expr.items():
            yield name, value
            yield from _nodes(value)
    elif isinstance(expr, list):
        for value in expr:
            yield from _nodes(value)
