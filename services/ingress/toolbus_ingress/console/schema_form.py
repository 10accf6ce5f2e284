"""Forms made of the schema of a tool's arguments: fields, and the arguments of a filled form.

Schemas come from servers, and values from people, so neither is trusted (no I/O).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from toolbus_common import strict_json

MAX_FIELDS = 40  # `form_of` reads 64 fields; a larger schema is one field of JSON
MAX_CHOICES = 200
WHOLE = "arguments"
Kind = Literal["text", "lines", "number", "integer", "boolean", "choice", "json"]


@dataclass(frozen=True, slots=True)
class ArgumentField:
    """One field. `id` is its name in the form; `name` is the argument, or empty for all.

    `choices` are shown as JSON, so that 1 and "1" differ. `value` and `error` are those of a form
    that was filled in.
    """

    id: str
    name: str
    kind: Kind
    required: bool
    description: str
    choices: tuple[str, ...] = ()
    value: str = ""
    error: str = ""


def fields_of(schema: Any) -> list[ArgumentField]:
    """Return the fields of a schema, the required ones first."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(properties) > MAX_FIELDS:
        return [ArgumentField(WHOLE, "", "json", required=True, description="", value="{}")]
    names = schema.get("required")
    required = {each for each in names if isinstance(each, str)} if isinstance(names, list) else ()
    found = [
        _field(f"argument.{number}", name, member, required=name in required)
        for number, (name, member) in enumerate(properties.items())
    ]
    return sorted(found, key=lambda each: not each.required)


def filled(
    fields: list[ArgumentField], form: Mapping[str, str]
) -> tuple[list[ArgumentField], dict[str, Any]]:
    """Return the fields with their values and errors, and the arguments.

    The arguments are complete only if no field has an error.
    """
    shown, arguments = list[ArgumentField](), dict[str, Any]()
    for each in fields:
        text, error = form.get(each.id, ""), ""
        try:
            given = _value(each, text)
        except ValueError as problem:
            error = str(problem)
        else:
            if not each.name and isinstance(given, dict):
                arguments = given
            elif given is not _MISSING:
                arguments[each.name] = given
        shown.append(replace(each, value=text, error=error))
    return shown, arguments


_MISSING = object()


def _field(field_id: str, name: str, member: Any, *, required: bool) -> ArgumentField:
    schema = member if isinstance(member, dict) else {}
    description, default = schema.get("description"), schema.get("default")
    choices = schema.get("enum")
    options: tuple[str, ...] = ()
    if isinstance(choices, list) and 0 < len(choices) <= MAX_CHOICES:
        options = tuple(json.dumps(each, ensure_ascii=False) for each in choices)
    kind: Kind = "choice" if options else _kind(schema)
    value = ""
    if default is not None:
        plain = isinstance(default, str) and kind in ("text", "lines")
        value = default if plain else json.dumps(default, ensure_ascii=False)
    return ArgumentField(
        id=field_id,
        name=name,
        kind=kind,
        required=required,
        description=description if isinstance(description, str) else "",
        choices=options,
        value=value,
    )


def _kind(schema: Mapping[str, Any]) -> Kind:
    kinds = schema.get("type")
    if isinstance(kinds, list):  # such as ["string", "null"]
        others = [each for each in kinds if each != "null"]
        kinds = others[0] if len(others) == 1 else ""
    if kinds == "string":
        longest = schema.get("maxLength")
        return "text" if isinstance(longest, int) and longest <= MAX_CHOICES else "lines"
    found: dict[str, Kind] = {"number": "number", "integer": "integer", "boolean": "boolean"}
    return found.get(kinds, "json") if isinstance(kinds, str) else "json"


def _value(field: ArgumentField, text: str) -> Any:
    """Return the value of a field; `_MISSING` if it is left out. Raises `ValueError`."""
    if not text.strip() and not (field.kind in ("text", "lines") and field.required):
        if field.required:
            raise ValueError("This field is required.")
        return _MISSING
    if field.kind in ("text", "lines"):
        if not text:
            raise ValueError("This field is required.")
        return text.replace("\r\n", "\n")
    if field.kind == "choice" and text not in field.choices:
        raise ValueError("Choose one of the listed values.")
    try:
        value = strict_json.parse(text.strip().encode())
    except (strict_json.StrictJSONError, UnicodeEncodeError) as error:
        wanted = {"number": "a number", "integer": "a whole number"}.get(field.kind, "valid JSON")
        raise ValueError(f"Enter {wanted}.") from error
    return _checked(field, value)


def _checked(field: ArgumentField, value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if field.kind == "number" and not is_number:
        raise ValueError("Enter a number, such as 1.5.")
    if field.kind == "integer" and not (is_number and value == int(value)):
        raise ValueError("Enter a whole number, such as 3.")
    if field.kind == "boolean" and not isinstance(value, bool):
        raise ValueError("Choose yes or no.")
    if not field.name and not isinstance(value, dict):
        raise ValueError('Enter a JSON object, such as {"query": "budget"}.')
    return value
