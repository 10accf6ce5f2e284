"""Repair of tool schemas. Some clients compile a schema as soon as they list the tool."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from toolbus_executor.repair.ecmascript_patterns import is_portable
from toolbus_executor.repair.json_readers import (
    Notes,
    UnreadableError,
    list_of,
    open_object,
    text,
)
from toolbus_executor.validation.schema_cost import (
    DanglingReferenceError,
    UnboundedError,
    bounds_of,
)

_OBJECT = "object"
_texts = list_of(text)


def input_schema(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    """Return a repaired schema of arguments. Its type is always `object`.

    Raises `UnreadableError`.
    """
    if value is True:
        notes.add(path, "was true and is {}")
        value = {}
    schema = dict(open_object(value, path, notes))
    _drop_nulls(schema, path, notes)
    _be_object(schema, path, notes)
    _read_members(schema, path, notes)
    return schema


def output_schema(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    """Return a repaired schema of results that clients can compile. Raises `UnreadableError`."""
    if value is True:
        notes.add(path, "was true and is {}")
        value = {}
    schema = dict(open_object(value, path, notes))
    _drop_nulls(schema, path, notes)
    if schema.get("type") != _OBJECT and isinstance(schema.get("type"), list):
        schema["type"] = _texts(schema["type"], f"{path}.type", notes)
    if "properties" in schema or schema.get("type") == _OBJECT:
        _read_members(schema, path, notes)
    _check_compiles(schema, path)
    return schema


def _drop_nulls(schema: dict[str, Any], path: str, notes: Notes) -> None:
    """Remove keywords that are null, except those whose value may be null."""
    for name in [name for name, value in schema.items() if value is None]:
        if name not in ("default", "const", "example"):
            del schema[name]
            notes.add(f"{path}.{name}", "was null and was left out")


def _be_object(schema: dict[str, Any], path: str, notes: Notes) -> None:
    declared_type = schema.get("type")
    if declared_type == _OBJECT:
        return
    if declared_type is not None and not (
        isinstance(declared_type, list) and _OBJECT in declared_type
    ):
        raise UnreadableError(f"{path}.type must be object")
    # Clients expect `type` first, and arguments are always an object.
    notes.add(f"{path}.type", "is object")
    schema.pop("type", None)
    rest = dict(schema)
    schema.clear()
    schema.update({"type": _OBJECT, **rest})


def _read_members(schema: dict[str, Any], path: str, notes: Notes) -> None:
    if "properties" in schema:
        properties = open_object(schema["properties"], f"{path}.properties", notes)
        schema["properties"] = {
            name: _subschema(each, f"{path}.properties.{name}", notes)
            for name, each in properties.items()
        }
    if "required" in schema:
        schema["required"] = _texts(schema["required"], f"{path}.required", notes)
    if "$schema" in schema:
        text(schema["$schema"], f"{path}.$schema", notes)


def _subschema(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    """Return a repaired schema of a property.

    Booleans are replaced with objects, because some clients reject booleans.
    """
    if value is True or value is None:
        notes.add(path, f"was {'true' if value else 'null'} and is {{}}")
        return {}
    if value is False:
        notes.add(path, 'was false and is {"not": {}}')
        return {"not": {}}
    return open_object(value, path, notes)


def _check_compiles(schema: dict[str, Any], path: str) -> None:
    """Raise `UnreadableError` if clients cannot compile the schema.

    A client that cannot compile one schema rejects the whole list.
    """
    odd = next((each for each in _patterns(schema) if not is_portable(each)), None)
    if odd is not None:
        raise UnreadableError(f"{path} has a pattern that is not valid ECMAScript: {odd[:60]!r}")
    try:
        bounds_of(schema)
    except DanglingReferenceError as error:
        raise UnreadableError(f"{path} cannot be compiled: {error}") from error
    except UnboundedError:
        return  # too large to compile here: the schema is passed to clients unchecked
    try:
        jsonschema_rs.validator_for(schema, validate_formats=False, offline=True)
    except BaseException as error:
        own = (ValueError, RecursionError, jsonschema_rs.ReferencingError)
        if not isinstance(error, own) and type(error).__name__ != "PanicException":
            raise
        raise UnreadableError(f"{path} is not a valid JSON Schema") from error


def _patterns(schema: Any) -> Iterator[str]:
    """Yield every regular expression of a schema, including the names of `patternProperties`."""
    if isinstance(schema, list):
        for each in schema:
            yield from _patterns(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        if isinstance(schema.get("patternProperties"), dict):
            yield from schema["patternProperties"]
        for each in schema.values():
            yield from _patterns(each)
