"""JSON Schema of GraphQL input types. Input objects refer to each other by name."""

from typing import Any

from toolbus_executor.upstreams.graphql.introspection import (
    DEEPEST_TYPE,
    Given,
    Ref,
    SchemaError,
    Type,
    Types,
)

MAX_INPUTS = 200  # input objects of one tool
LONGEST_DESCRIPTION = 500
_SCALARS: dict[str, dict[str, Any]] = {
    "Int": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "Float": {"type": "number"},
    "String": {"type": "string"},
    "Boolean": {"type": "boolean"},
    "ID": {"type": ["string", "integer"]},
}


class Inputs:
    """Schemas of one tool's arguments. `definitions` contains the referenced input objects."""

    def __init__(self, types: Types) -> None:
        self._types = types
        self.definitions: dict[str, Any] = {}

    def given(self, each: Given) -> dict[str, Any]:
        """Return the schema of an argument. Raises `SchemaError`."""
        schema = self._of(each.type, 0)
        description = (each.description or "").strip()[:LONGEST_DESCRIPTION]
        return schema | ({"description": description} if description else {})

    def _of(self, ref: Ref, depth: int) -> dict[str, Any]:
        if depth > DEEPEST_TYPE:
            raise SchemaError("a type has too many list and non-null wrappers")
        if ref.kind == "NON_NULL" and ref.of_type is not None:
            return self._bare(ref.of_type, depth + 1)
        return _or_null(self._bare(ref, depth))

    def _bare(self, ref: Ref, depth: int) -> dict[str, Any]:
        if ref.kind == "LIST" and ref.of_type is not None:
            return {"type": "array", "items": self._of(ref.of_type, depth + 1)}
        named = self._types.of(ref)
        if named.kind == "ENUM":
            return {"enum": [each.name for each in named.enum_values or []]}
        if named.kind == "INPUT_OBJECT":
            return self._object(named)
        return dict(
            _SCALARS.get(named.name, {"description": f"A {named.name}, as defined by the API"})
        )

    def _object(self, named: Type) -> dict[str, Any]:
        """Return a reference to an input object. Its schema is added to `definitions` once."""
        if named.name not in self.definitions:
            if len(self.definitions) >= MAX_INPUTS:
                raise SchemaError(f"its arguments refer to more than {MAX_INPUTS} input objects")
            self.definitions[named.name] = {}
            self.definitions[named.name] = object_of(named.input_fields or [], self)
        return {"$ref": f"#/$defs/{named.name}"}


def object_of(fields: list[Given], inputs: Inputs) -> dict[str, Any]:
    """Return the schema of an object that has exactly these fields. Raises `SchemaError`."""
    required = [each.name for each in fields if each.required]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {each.name: inputs.given(each) for each in fields},
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if "enum" in schema:
        return schema | {"enum": [*schema["enum"], None]}
    if "type" in schema:
        declared = schema["type"]
        return schema | {
            "type": [*(declared if isinstance(declared, list) else [declared]), "null"]
        }
    return {"anyOf": [schema, {"type": "null"}]} if "$ref" in schema else schema
