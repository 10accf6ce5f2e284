"""Tools derived from a GraphQL schema, and the GraphQL operations of their calls."""

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
_SUBSCRIPTION = "subscription"


@dataclass(frozen=True, slots=True)
class Operation:
    """A field of a root type, as a tool."""

    kind: str
    field: Field
    types: Types
    select: str  # name of the argument that selects result fields; empty for a leaf type
    definition: dict[str, Any]

    @property
    def binding(self) -> str:
        """A digest that identifies the field, its types and the address."""
        return str(self.definition["_meta"][BINDING])

    def request(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the body of the request for these arguments. Raises `SelectionError`."""
        values = {name: each for name, each in arguments.items() if name != self.select}
        paths = arguments.get(self.select) if self.select else None
        tree = (
            selection.chosen(self.types, self.field, _paths(paths))
            if paths
            else selection.usual(self.types, self.field)
        )
        given = [each for each in self.field.args if each.name in values]
        variables = ",".join(f"${each.name}:{each.type.written()}" for each in given)
        passed = ",".join(f"{each.name}:${each.name}" for each in given)
        selected = selection.written(tree, self.types, self.types.of(self.field.type))
        field = f"{self.field.name}{_in_parentheses(passed)}{selected}"
        text = f"{self.kind}{_in_parentheses(variables)}{{{field}}}"
        return {"query": text, "variables": values}


def operations_in(
    types: Types, wanted: Operations, address: str
) -> tuple[dict[str, Operation], dict[str, str]]:
    """Return the tools by name, and the omitted fields with the reasons.

    Only the fields that `wanted` selects are considered. `address` becomes a part of the digest of
    each tool.
    """
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
    if types.fields(_SUBSCRIPTION):
        left_out[_SUBSCRIPTION] = (
            f"{len(types.fields(_SUBSCRIPTION))} fields: a call cannot return a stream"
        )
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
    select = "" if types.of(field.type).is_leaf else _free_name(field)
    if select:
        schema["properties"][select] = _select(types, field)
    if inputs.definitions:
        schema["$defs"] = inputs.definitions
    definition = {
        "name": name,
        "description": _description(kind, field),
        "inputSchema": schema,
        "annotations": {"readOnlyHint": kind == "query"},
        "_meta": {BINDING: _binding(address, kind, field)},
    }
    return Operation(kind, field, types, select, definition)


def _select(types: Types, field: Field) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string", "maxLength": 1_000},
        "maxItems": selection.MAX_PATHS,
        "description": (
            "The fields to return, as dotted paths such as owner.name. If a field has several "
            "possible types, the path contains the type: owner.User.name. "
            f"The default for {field.type.base} is: "
            + ", ".join(list(selection.usual(types, field))[:30])
        ),
    }


def _description(kind: str, field: Field) -> str:
    text = (field.description or "").strip()
    return (text or f"The {kind} {field.name}.")[:LONGEST_DESCRIPTION]


def _binding(address: str, kind: str, field: Field) -> str:
    """Return the digest of the inputs that an approval covers in addition to the definition.

    These are the address, the field and its types.
    """
    given = ",".join(f"{each.name}:{each.type.written()}" for each in field.args)
    text = f"{address} {kind} {field.name}({given}):{field.type.written()}"
    return sha256(text.encode()).hexdigest()[:32]


def _free_name(field: Field) -> str:
    """Return a name for the argument that selects fields. No other argument has this name."""
    taken, name = {each.name for each in field.args}, "select"
    while name in taken:
        name += "_"
    return name


def _paths(paths: Any) -> list[str]:
    if not isinstance(paths, list) or not all(isinstance(each, str) for each in paths):
        raise selection.SelectionError("'select' must be an array of strings")
    if len(paths) > selection.MAX_PATHS:
        raise selection.SelectionError(f"'select' has more than {selection.MAX_PATHS} paths")
    return paths


def _in_parentheses(text: str) -> str:
    return f"({text})" if text else ""
