"""Inputs of a Cedar expression. The inputs show whether arguments are needed for its evaluation."""

from collections.abc import Iterator
from typing import Any

from toolbus_common.rules.parser import Expr

# Attributes of the context that are equal for all calls of one tool with one key.
SETTLED = frozenset({"cost", "family"})
ARGUMENTS = "arguments"
MODEL = "model"  # only model requests have this attribute
RUN = "run"  # what the run of the call has read
WHOLE: None = None  # all arguments


def is_settled(expr: Expr) -> bool:
    """Return whether the expression has the same value for all calls of one tool with one key."""
    return all(read in SETTLED for read in context_read(expr))


def context_read(expr: Expr) -> frozenset[str]:
    """Return the context attributes that the expression reads. `""` means the whole context."""
    return frozenset(path[0] if path else "" for path in paths(expr))


def arguments_read(expr: Expr) -> frozenset[str] | None:
    """Return the names of the arguments that the expression reads; `WHOLE` for all arguments."""
    names: set[str] = set()
    for path in paths(expr):
        if path[:1] in ((), (ARGUMENTS,)):
            if len(path) < len((ARGUMENTS, "name")):
                return WHOLE
            names.add(path[1])
    return frozenset(names)


def reads_entities(expr: Expr) -> bool:
    """Return whether the expression reads the principal, the action or the resource."""
    entities = (("Var", "principal"), ("Var", "action"), ("Var", "resource"))
    return any(
        node in entities or (node[0] == "Value" and isinstance(node[1], dict))
        for node in _nodes(expr)
    )


def reads_cost(expr: Expr) -> bool:
    """Return whether the expression can depend on the cost of the call."""
    if not context_read(expr).isdisjoint(("cost", "")):
        return True
    return any(node == ("attr", "price") for node in _nodes(expr))


def reads_run(expr: Expr) -> bool:
    """Return whether the expression can depend on what the run of the call has read."""
    return not context_read(expr).isdisjoint((RUN, ""))


def reads_flow_labels(expr: Expr) -> bool:
    """Return whether the expression can depend on what the tool reads or where it writes."""
    return any(node in (("attr", "reads"), ("attr", "writes")) for node in _nodes(expr))


def entities_named(expr: Expr) -> Iterator[tuple[str, str]]:
    """Yield each entity in the expression, as kind and name."""
    if isinstance(expr, dict) and expr.keys() == {"type", "id"}:
        yield expr["type"], expr["id"]
    for _, value in _nodes(expr):
        if isinstance(value, dict) and value.keys() == {"type", "id"}:
            yield value["type"], value["id"]


def paths(expr: Expr) -> Iterator[tuple[str, ...]]:
    """Yield every chain of attributes in the expression that starts at the context."""
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
    """Return the names of the attributes that lead from `context` to this expression.

    Return None if the expression does not start at `context`.
    """
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
