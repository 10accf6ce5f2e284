"""The schemas of a tool as clients read them: checked when they list, some compiled at once."""

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
from toolbus_executor.validation.schema_cost import DanglingError, UnboundedError, bounds_of

_OBJECT = "object"
_texts = list_of(text)


def input_schema(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    """Read a schema of arguments: always an object, whose properties are schemas."""
    if value is True:
        notes.add(path, "was true and is {}")
        value = {}
    schema = dict(open_object(value, path, notes))
    _drop_nulls(schema, path, notes)
    _be_object(schema, path, notes)
    _read_members(schema, path, notes)
    return schema


def output_schema(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    """Read a schema of results, which clients compile as soon as they list the tool."""
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
    """Leave out keywords that are null, but for those whose value may be null."""
    for name in [name for name, told in schema.items() if told is None]:
        if name not in ("default", "const", "example"):
            del schema[name]
            notes.add(f"{path}.{name}", "was null and was left out")


def _be_object(schema: dict[str, Any], path: str, notes: Notes) -> None:
    told = schema.get("type")
    if told == _OBJECT:
        return
    if told is not None and not (isinstance(told, list) and _OBJECT in told):
        raise UnreadableError(f"{path}.type must be object")
    # In front, where clients look for it; arguments are an object whatever else it allows.
    notes.add(f"{path}.type", "is object")
    schema.pop("type", None)
    rest = dict(schema)
    schema.clear()
    schema.update({"type": _OBJECT, **rest})


def _read_members(schema: dict[str, Any], path: str, notes: Notes) -> None:
    if "properties" in schema:
        told = open_object(schema["properties"], f"{path}.properties", notes)
        schema["properties"] = {
            name: _subschema(each, f"{path}.properties.{name}", notes)
            for name, each in told.items()
        }
    if "required" in schema:
        schema["required"] = _texts(schema["required"], f"{path}.required", notes)
    if "$schema" in schema:
        text(schema["$schema"], f"{path}.$schema", notes)


def _subschema(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    """Read the schema of a property. Not every client takes a boolean for one."""
    if value is True or value is None:
        notes.add(path, f"was {'true' if value else 'null'} and is {{}}")
        return {}
    if value is False:
        notes.add(path, 'was false and is {"not": {}}')
        return {"not": {}}
    return open_object(value, path, notes)


def _check_compiles(schema: dict[str, Any], path: str) -> None:
    """Reject what a client cannot compile: its whole list would fail."""
    odd = next((each for each in _patterns(schema) if not is_portable(each)), None)
    if odd is not None:
        raise UnreadableError(f"{path} has a pattern that is not of ECMAScript: {odd[:60]!r}")
    try:
        bounds_of(schema)
    except DanglingError as error:
        raise UnreadableError(f"{path} cannot be compiled: {error}") from error
    except UnboundedError:
        return  # too large to be compiled here: a client decides for itself
    try:
        jsonschema_rs.validator_for(schema, validate_formats=False, offline=True)
    except BaseException as error:
        own = (ValueError, RecursionError, jsonschema_rs.ReferencingError)
        if not isinstance(error, own) and type(error).__name__ != "PanicException":
            raise
        raise UnreadableError(f"{path} is no valid JSON Schema") from error


def _patterns(schema: Any) -> Iterator[str]:
    """Every pattern in a schema, names of `patternProperties` too."""
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
