"""Selection of the fields of a result. The default is the leaf fields."""

from collections.abc import Iterable
from typing import Any

from toolbus_executor.upstreams.graphql.introspection import Field, SchemaError, Type, Types

MAX_FIELDS = 60  # fields that are selected by default
MAX_PATHS, DEEPEST_PATH = 100, 8
NEAR = 1  # levels of nested objects whose plain fields are included
_TYPENAME = "__typename"
_MAX_NAMED = 30
_MAX_CONSIDERED = 500  # considered fields of one type
_MAX_UNION_MEMBERS = 50

Tree = dict[str, Any]  # selected fields, each with the selection within it; empty for a leaf


class SelectionError(Exception):
    """A caller's selection is invalid. The message contains the available fields."""


def usual(types: Types, field: Field) -> Tree:
    """Return the default selection: the leaf fields of the type, and of objects one level below."""
    left = [MAX_FIELDS]
    return _plain(types, types.of(field.type), NEAR, left)


def chosen(types: Types, field: Field, paths: Iterable[str]) -> Tree:
    """Return the selection for a caller's dotted paths.

    If a path ends at an object, the leaf fields of the object are selected.

    Raises:
        SelectionError: a path does not exist.

    """
    tree: Tree = {}
    root = types.of(field.type)
    for path in paths:
        steps = path.split(".")
        if len(steps) > DEEPEST_PATH:
            raise SelectionError(f"{path[:80]!r} in 'select' is deeper than {DEEPEST_PATH} fields")
        _follow(types, root, steps, tree)
    return tree


def written(tree: Tree, types: Types, named: Type) -> str:
    """Return a selection in GraphQL syntax; empty for a leaf type."""
    if named.is_leaf:
        return ""
    parts = []
    for name, inner in tree.items():
        step = _step(types, named, name)
        if step is None:
            parts.append(name)
        elif isinstance(step, Type):
            parts.append(f"...on {name}{written(inner, types, step)}")
        else:
            parts.append(name + written(inner, types, types.of(step.type)))
    return "{" + " ".join(parts or [_TYPENAME]) + "}"


def _follow(types: Types, named: Type, steps: list[str], tree: Tree) -> None:
    """Add one path to the selection. Raises `SelectionError`."""
    for position, name in enumerate(steps):
        step = _step(types, named, name)
        if step is None and name != _TYPENAME:
            raise SelectionError(_no_such_path(named, ".".join(steps[: position + 1])))
        if isinstance(step, Field) and not step.selectable:
            raise SelectionError(
                f"{name!r} in 'select' needs arguments, which 'select' does not support"
            )
        tree = tree.setdefault(name, {})
        if step is None:
            return
        named = step if isinstance(step, Type) else types.of(step.type)
    if not named.is_leaf and not tree:
        tree |= _plain(types, named, 0, [MAX_FIELDS])


def _step(types: Types, named: Type, name: str) -> Field | Type | None:
    """Return the field or the possible type with this name; None if the type has neither."""
    for each in named.fields or []:
        if each.name == name:
            return each
    if any(each.name == name for each in named.possible_types or []):
        return types.called(name)
    return None


def _no_such_path(named: Type, path: str) -> str:
    there = [each.name for each in named.fields or [] if each.selectable]
    there += [each.name for each in named.possible_types or []]
    available = ", ".join(sorted(there)[:_MAX_NAMED]) or "nothing"
    return f"{path[:120]!r} in 'select' does not exist; {named.name} has: {available}"


def _plain(types: Types, named: Type, near: int, left: list[int]) -> Tree:
    """Return the leaf fields of a type, and of objects up to `near` levels below.

    `left` is the number of fields that can still be selected; it is updated.
    """
    if named.is_leaf:
        return {}
    tree: Tree = {_TYPENAME: {}} if named.kind in ("UNION", "INTERFACE") else {}
    for field in (named.fields or [])[:_MAX_CONSIDERED]:
        if left[0] <= 0 or not field.selectable:
            continue
        inner = types.of(field.type)
        if inner.is_leaf:
            left[0] -= 1
            tree[field.name] = {}
        elif near and (within := _plain(types, inner, near - 1, left)):
            tree[field.name] = within
    return tree | _of_each(types, named, left)


def _of_each(types: Types, named: Type, left: list[int]) -> Tree:
    """Return the leaf fields of each possible type of a union."""
    may_be = named.possible_types or [] if named.kind == "UNION" else []
    found = {
        each.name: _plain(types, types.called(each.name), 0, left)
        for each in may_be[:_MAX_UNION_MEMBERS]
    }
    return {name: inner for name, inner in found.items() if inner}


def check(types: Types, field: Field) -> None:
    """Raise `SchemaError` if a call could select no field of the result."""
    if not types.of(field.type).is_leaf and not usual(types, field):
        raise SchemaError("it returns no field that can be selected without arguments")
