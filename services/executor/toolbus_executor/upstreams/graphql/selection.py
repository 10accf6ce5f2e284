"""What an operation asks back: the plain fields by themselves, or those a caller names. Pure."""

from collections.abc import Iterable
from typing import Any

from toolbus_executor.upstreams.graphql.introspection import Field, SchemaError, Type, Types

MOST_FIELDS = 60  # that are asked for unasked
MOST_PATHS, DEEPEST_PATH = 100, 8
NEAR = 1  # objects within the result whose plain fields come with it
_TYPENAME = "__typename"
_MOST_TOLD = 30
_MOST_LOOKED_AT = 500  # fields of one type, of which the plain ones are taken
_MOST_OF_UNION = 50

Tree = dict[str, Any]  # name -> what is selected within; empty for a leaf


class SelectionError(Exception):
    """What a caller asked for is not there; the text says what is."""


def usual(types: Types, field: Field) -> Tree:
    """The plain fields of what a field gives, and of the objects right within."""
    left = [MOST_FIELDS]
    return _plain(types, types.of(field.type), NEAR, left)


def chosen(types: Types, field: Field, paths: Iterable[str]) -> Tree:
    """What a caller's dotted paths select; where one ends at an object, its plain fields.

    Raises:
        SelectionError: a path leads nowhere.

    """
    tree: Tree = {}
    root = types.of(field.type)
    for path in paths:
        steps = path.split(".")
        if len(steps) > DEEPEST_PATH:
            raise SelectionError(f"{path[:80]!r} in select goes deeper than {DEEPEST_PATH} fields")
        _follow(types, root, steps, tree)
    return tree


def written(tree: Tree, types: Types, named: Type) -> str:
    """A selection as a document has it; a leaf has none."""
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
    """Add one path to what is selected."""
    for position, name in enumerate(steps):
        step = _step(types, named, name)
        if step is None and name != _TYPENAME:
            raise SelectionError(_nowhere(named, ".".join(steps[: position + 1])))
        if isinstance(step, Field) and not step.selectable:
            raise SelectionError(f"{name!r} in select needs arguments, which cannot be given here")
        tree = tree.setdefault(name, {})
        if step is None:
            return
        named = step if isinstance(step, Type) else types.of(step.type)
    if not named.is_leaf and not tree:
        tree |= _plain(types, named, 0, [MOST_FIELDS])


def _step(types: Types, named: Type, name: str) -> Field | Type | None:
    """A field of a type, or one of the types it may be."""
    for each in named.fields or []:
        if each.name == name:
            return each
    if any(each.name == name for each in named.possible_types or []):
        return types.called(name)
    return None


def _nowhere(named: Type, path: str) -> str:
    there = [each.name for each in named.fields or [] if each.selectable]
    there += [each.name for each in named.possible_types or []]
    told = ", ".join(sorted(there)[:_MOST_TOLD]) or "nothing"
    return f"{path[:120]!r} in select leads nowhere; {named.name} has: {told}"


def _plain(types: Types, named: Type, near: int, left: list[int]) -> Tree:
    """The fields without fields of their own, and so much of the objects within; bounded."""
    if named.is_leaf:
        return {}
    tree: Tree = {_TYPENAME: {}} if named.kind in ("UNION", "INTERFACE") else {}
    for field in (named.fields or [])[:_MOST_LOOKED_AT]:
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
    """The plain fields of every type a union may be."""
    may_be = named.possible_types or [] if named.kind == "UNION" else []
    found = {
        each.name: _plain(types, types.called(each.name), 0, left)
        for each in may_be[:_MOST_OF_UNION]
    }
    return {name: inner for name, inner in found.items() if inner}


def check(types: Types, field: Field) -> None:
    """Raises `SchemaError` where not everything is said that a selection could need."""
    if not types.of(field.type).is_leaf and not usual(types, field):
        raise SchemaError("it gives nothing that could be asked for without arguments")
