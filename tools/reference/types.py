"""Types, defaults and limits of pydantic fields, in the terms of YAML and of a shell."""

from collections.abc import Iterator
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, JsonValue, SecretStr
from pydantic.fields import FieldInfo

from reference.markdown import code

_PLAIN = {
    str: "text", int: "integer", float: "number", bool: "true or false", Path: "path",
    SecretStr: "text", date: "date", datetime: "time", type(None): "", Any: "any value",
    JsonValue: "any value",
}  # fmt: skip
_MIB, _KIB, _GIB = 1 << 20, 1 << 10, 1 << 30


def type_of(annotation: Any) -> str:  # noqa: PLR0911 - one for each form
    """Return the name of a type; a model's name links to its table."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _one_of(each.value for each in annotation)
    if origin is Literal:
        return _one_of(each.value if isinstance(each, Enum) else each for each in args)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(filter(None, map(type_of, args))))
    if origin in (tuple, list):
        return f"list of {type_of(args[0])}"
    if origin is dict:
        return f"mapping of name to {type_of(args[1])}"
    if hasattr(annotation, "__metadata__"):  # Annotated
        return type_of(args[0])
    return str(annotation)


def _one_of(values: Any) -> str:
    return ", ".join(code(value) if value != "" else "empty" for value in values)


def default_of(field: FieldInfo, *, in_bytes: bool = False) -> str:
    """Return a field's default, or `required` if it has none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value in ("", (), {}) or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, tuple):
        return ", ".join(map(code, value))
    return code(number(value, in_bytes=in_bytes)) if isinstance(value, int | float) else code(value)


def number(value: float, *, in_bytes: bool) -> str:
    """Return a number; with `in_bytes`, also in KiB, MiB or GiB if that is a whole number."""
    if in_bytes and isinstance(value, int) and value >= 64 * _KIB:
        for unit, name in ((_GIB, "GiB"), (_MIB, "MiB"), (_KIB, "KiB")):
            if value % unit == 0:
                return f"{value} ({value // unit} {name})"
    return str(int(value)) if value == int(value) else str(value)


def limits_of(field: FieldInfo, *, in_bytes: bool = False) -> str:
    """Return the limits of a field's value, lengths and patterns included."""
    return "; ".join(_limits(field, in_bytes=in_bytes))


def _limits(field: FieldInfo, *, in_bytes: bool) -> Iterator[str]:
    forms = (field.annotation, *get_args(field.annotation))  # of `tuple[…] | None` too
    unit = "entries" if {get_origin(each) for each in forms} & {tuple, list, dict} else "characters"
    for each in field.metadata:
        if isinstance(each, annotated_types.Ge):
            yield f"≥ {number(each.ge, in_bytes=in_bytes)}"  # type: ignore[arg-type]
        elif isinstance(each, annotated_types.Gt):
            yield f"> {number(each.gt, in_bytes=in_bytes)}"  # type: ignore[arg-type]
        elif isinstance(each, annotated_types.Le):
            yield f"≤ {number(each.le, in_bytes=in_bytes)}"  # type: ignore[arg-type]
        elif isinstance(each, annotated_types.MinLen):
            yield f"at least {each.min_length} {_unit(unit, each.min_length)}"
        elif isinstance(each, annotated_types.MaxLen):
            yield f"at most {each.max_length} {_unit(unit, each.max_length)}"
        elif getattr(each, "pattern", None):
            yield f"matches {code(each.pattern)}"


def _unit(unit: str, count: int) -> str:
    return unit if count != 1 else {"entries": "entry", "characters": "character"}[unit]
