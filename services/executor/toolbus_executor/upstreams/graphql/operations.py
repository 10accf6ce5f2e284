"""The tools a GraphQL schema makes, and the operation that each call is. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Operations
from toolbus_common.openapi import BINDING
from toolbus_executor.upstreams.graphql import selection
from toolbus_executor.upstreams.graphql.input_schemas import Inputs, object_of
from toolbus_executor.upstreams.graphql.introspection import Field, SchemaError, Types

LONGEST_DESCRIPTION = 2_000
_KINDS = ("query", "mutation")
_ASIDE = "subscription"


@dataclass(frozen=True, slots=True)
class Operation:
    """One field of a root as a tool."""

    kind: str
    field: Field
    types: Types
    select: str  # the argument that says what is asked back; empty where nothing is
    definition: dict[str, Any]

    @property
    def binding(self) -> str:
        """What its definition stands for."""
        return str(self.definition["_meta"][BINDING])

    def request(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The body of the request for these arguments. Raises `SelectionError`."""
        told = {name: each for name, each in arguments.items() if name != self.select}
        paths = arguments.get(self.select) if self.select else None
        tree = (
            selection.chosen(self.types, self.field, _paths(paths))
            if paths
            else selection.usual(self.types, self.field)
        )
        given = [each for each in self.field.args if each.name in told]
        variables = ",".join(f"${each.name}:{each.type.written()}" for each in given)
        passed = ",".join(f"{each.name}:${each.name}" for each in given)
        asked = selection.written(tree, self.types, self.types.of(self.field.type))
        text = f"{self.kind}{_within(variables)}{{{self.field.name}{_within(passed)}{asked}}}"
        return {"query": text, "variables": told}


def operations_in(
    types: Types, wanted: Operations, address: str
) -> tuple[dict[str, Operation], dict[str, str]]:
    """The tools by their names, and what is left out and why."""
    found: dict[str, Operation] = {}
    left_out: dict[str, str] = {}
    for kind, field in _fields(types):
        if not _is_wanted(kind, field.name, wanted):
            continue
        name = field.name if field.name not in found else f"{kind}_{field.name}"
        try:
            selection.check(types, field)
            found[name] = _operation(types, kind, field, name, address)
        except SchemaError as error:
            left_out[f"{kind}:{field.name}"] = str(error)
    if types.fields(_ASIDE):
        left_out[_ASIDE] = f"{len(types.fields(_ASIDE))} fields: no call has an answer that goes on"
    return found, left_out


def _fields(types: Types) -> Iterator[tuple[str, Field]]:
    for kind in _KINDS:
        for field in types.fields(kind):
            if not field.name.startswith("__"):
                yield kind, field


def _is_wanted(kind: str, name: str, wanted: Operations) -> bool:
    known = (name, f"{kind}:{name}")
    return any(granted(wanted.include, each) for each in known) and not any(
        granted(wanted.exclude, each) for each in known
    )


def _operation(types: Types, kind: str, field: Field, name: str, address: str) -> Operation:
    inputs = Inputs(types)
    schema = object_of(field.args, inputs)
    select = "" if types.of(field.type).is_leaf else _free(field)
    if select:
        schema["properties"][select] = _select(types, field)
    if inputs.definitions:
        schema["$defs"] = inputs.definitions
    definition = {
        "name": name,
        "description": _described(kind, field),
        "inputSchema": schema,
        "annotations": {"readOnlyHint": kind == "query"},
        "_meta": {BINDING: _binding(address, kind, field)},
    }
    return Operation(kind, field, types, select, definition)


def _select(types: Types, field: Field) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string", "maxLength": 1_000},
        "maxItems": selection.MOST_PATHS,
        "description": (
            "What to ask back, as dotted paths of fields (owner.name; through a type where there "
            f"are several). {field.type.base} by itself: "
            + ", ".join(list(selection.usual(types, field))[:30])
        ),
    }


def _described(kind: str, field: Field) -> str:
    told = (field.description or "").strip()
    return (told or f"The {kind} {field.name}.")[:LONGEST_DESCRIPTION]


def _binding(address: str, kind: str, field: Field) -> str:
    """What a pin holds beside the definition: where the call goes, and the types on its way."""
    given = ",".join(f"{each.name}:{each.type.written()}" for each in field.args)
    told = f"{address} {kind} {field.name}({given}):{field.type.written()}"
    return sha256(told.encode()).hexdigest()[:32]


def _free(field: Field) -> str:
    """A name for what is selected that is no argument's."""
    taken, name = {each.name for each in field.args}, "select"
    while name in taken:
        name += "_"
    return name


def _paths(told: Any) -> list[str]:
    if not isinstance(told, list) or not all(isinstance(each, str) for each in told):
        raise selection.SelectionError("'select' must be an array of strings")
    if len(told) > selection.MOST_PATHS:
        raise selection.SelectionError(f"'select' has more than {selection.MOST_PATHS} paths")
    return told


def _within(text: str) -> str:
    return f"({text})" if text else ""
