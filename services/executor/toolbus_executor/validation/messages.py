"""Error messages about values that violate a schema. They are short, for models, without values."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from jsonschema_rs import ValidationError, ValidationErrorKind

MAX_ERRORS = 3
MAX_LENGTH = 600  # characters of the whole message
_LONGEST_NAME, _LONGEST_PATTERN, _MAX_NAMES = 64, 120, 12
_DEEPEST_CHOICE = 3

_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "an integer"),
    (float, "a number"),
    (dict, "an object"),
    (list, "an array"),
)
_NAMES = {
    "boolean": "a boolean",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "object": "an object",
    "array": "an array",
    "null": "null",
}
_LIMITS = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} members",
    "maxProperties": "must have at most {} members",
    "multipleOf": "must be a multiple of {}",
}
_FIXED = {
    "uniqueItems": "must not contain the same item twice",
    "contains": "contains no item that matches 'contains' of its schema",
    "not": "matches a schema that 'not' excludes",
    "falseSchema": "is not allowed",
    "propertyNames": "has a member whose name is not allowed",
}


def errors_in(errors: Iterable[ValidationError], schema: Any, whole: str) -> str:
    """Return a message with the first few errors, each with its location.

    `whole` is the name of the value itself.
    """
    messages = [_message(each, schema, whole) for each in islice(errors, MAX_ERRORS + 1)]
    more = "; further errors are omitted" if len(messages) > MAX_ERRORS else ""
    return _truncated("; ".join(dict.fromkeys(messages[:MAX_ERRORS])), MAX_LENGTH) + more


def _message(error: ValidationError, schema: Any, whole: str) -> str:
    path = error.instance_path
    kind, location = error.kind, _location(path, whole)
    if isinstance(kind, ValidationErrorKind.Required):
        name = _location([*path, kind.property], whole)
        return f"{name} is missing{_expected(_schema_at(error, schema, kind.property))}"
    if isinstance(kind, ValidationErrorKind.AdditionalProperties):
        return _unexpected(kind.unexpected, _schema_at(error, schema), location)
    if isinstance(kind, ValidationErrorKind.UnevaluatedProperties):
        return _unexpected(kind.unexpected, None, location)
    return f"{location} {_problem(error)}"


def _problem(error: ValidationError, depth: int = 0) -> str:
    """Return an error as a clause. The location is the subject of the clause."""
    kind = error.kind
    if isinstance(kind, ValidationErrorKind.AnyOf | ValidationErrorKind.OneOfNotValid):
        return _no_alternative(error, kind.context, depth)
    if isinstance(kind, ValidationErrorKind.Type):
        return f"must be {_type_names(kind.types)}; it is {_type_of(error.instance)}"
    limit = _LIMITS.get(kind.name)
    if limit is not None:
        return limit.format(_truncated(str(kind.value), _LONGEST_NAME))
    return _one_of(kind)


def _one_of(kind: ValidationErrorKind) -> str:
    match kind:
        case ValidationErrorKind.Enum():
            return f"must be one of {_listed(kind.options)}"
        case ValidationErrorKind.Constant():
            return f"must be {_shown(kind.expected_value)}"
        case ValidationErrorKind.Pattern():
            return f"must match the pattern {_truncated(kind.pattern, _LONGEST_PATTERN)!r}"
        case ValidationErrorKind.OneOfMultipleValid():
            return "matches several alternatives of 'oneOf', but must match exactly one"
    return _FIXED.get(
        kind.name, f"does not match {_truncated(kind.name, _LONGEST_NAME)!r} of its schema"
    )


def _no_alternative(error: ValidationError, forms: list[list[ValidationError]], depth: int) -> str:
    """Return a clause about a value that matches no alternative of its schema.

    The clause contains the allowed types, or the error of the closest alternative.
    """
    here = error.instance_path
    types = [
        name
        for form in forms
        for each in form[:1]
        if isinstance(each.kind, ValidationErrorKind.Type) and each.instance_path == here
        for name in each.kind.types
    ]
    if len(types) >= len(forms):
        return f"must be {_type_names(types)}; it is {_type_of(error.instance)}"
    near = [form for form in forms if form and not _of_another_type(form[0], here)]
    if not near or depth >= _DEEPEST_CHOICE:
        return f"matches none of the {len(forms)} alternatives of its schema"
    closest = min(near, key=len)[0]
    inner = closest.instance_path[len(here) :]
    at = f"{_steps(inner)} " if inner else "it "
    if isinstance(closest.kind, ValidationErrorKind.Required):
        wrong = f"{_quoted(closest.kind.property)} is missing"
    else:
        wrong = at + _problem(closest, depth + 1)
    return (
        f"matches none of the {len(forms)} alternatives of its schema; for the closest one, {wrong}"
    )


def _of_another_type(error: ValidationError, here: list[str | int]) -> bool:
    return isinstance(error.kind, ValidationErrorKind.Type) and error.instance_path == here


def _unexpected(names: list[str], schema: Any, location: str) -> str:
    known = schema.get("properties") if isinstance(schema, dict) else None
    known_names = (
        f"; known names: {_listed(list(known))}" if isinstance(known, dict) and known else ""
    )
    none = f"{location} has no" if location.startswith("'") else "there is no argument"
    return f"{none} {_listed(names, ' and ')}{known_names}"


def _schema_at(error: ValidationError, schema: Any, name: str = "") -> Any:
    """Return the schema that contains the keyword of an error, or its property `name`."""
    found = schema
    for step in error.schema_path[:-1]:
        if isinstance(found, dict):
            found = found.get(str(step))
        elif isinstance(found, list) and isinstance(step, int) and step < len(found):
            found = found[step]
        else:
            return None
    if not name:
        return found
    known = found.get("properties") if isinstance(found, dict) else None
    return known.get(name) if isinstance(known, dict) else None


def _expected(schema: Any) -> str:
    """Return a hint at the type or the options of a missing value; empty if the schema has none."""
    if not isinstance(schema, dict):
        return ""
    options, messages = schema.get("enum"), schema.get("type")
    if isinstance(options, list) and options:
        return f": give one of {_listed(options)}"
    names = [messages] if isinstance(messages, str) else messages
    if isinstance(names, list) and names and all(isinstance(each, str) for each in names):
        return f": give {_type_names(names)}"
    return ""


def _location(path: Sequence[str | int], whole: str) -> str:
    return _steps(path) if path else whole


def _steps(path: Sequence[str | int]) -> str:
    """Return a path as text, such as `'filter.tags[2]'`."""
    shown = ""
    for step in path[-8:]:
        shown += f"[{step}]" if isinstance(step, int) else f".{_truncated(step, _LONGEST_NAME)}"
    return _quoted(("…" if len(path) > 8 else "") + shown.removeprefix("."))  # noqa: PLR2004


def _type_names(names: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(_NAMES.get(each, "of another type") for each in names))


def _type_of(value: Any) -> str:
    for known, name in _TYPES:
        if isinstance(value, known):
            return name
    return "null"


def _listed(values: Sequence[Any], between: str = ", ") -> str:
    shown = between.join(_shown(each) for each in values[:_MAX_NAMES])
    more = len(values) - _MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _shown(value: Any) -> str:
    """Return a value for a message: a value of the schema, or a name that the caller used."""
    if isinstance(value, dict | list):
        return _type_of(value)
    return _quoted(value) if isinstance(value, str) else _truncated(str(value), _LONGEST_NAME)


def _quoted(text: str) -> str:
    return repr(_truncated(text, 4 * _LONGEST_NAME))


def _truncated(text: str, maximum: int) -> str:
    return text if len(text) <= maximum else f"{text[:maximum]}…"
