"""Tool arguments that are repeated as headers `Mcp-Param-*` (MCP 2026-07-28, x-mcp-header)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common.mcp.param_headers import ANNOTATION, PREFIX, TOKEN, encoded, text_of, value_at

_TYPES = ("string", "integer", "boolean")
_DATA = frozenset({"default", "const", "enum", "examples"})  # keywords whose values are not schemas


@dataclass(frozen=True, slots=True)
class Param:
    """An argument to repeat as a header: its path in the arguments, and the header's name."""

    path: tuple[str, ...]
    header: bytes


class AnnotationError(ValueError):
    """An annotation of a schema violates MCP's rules. The message is the reason."""


def params_of(schema: Any) -> tuple[Param, ...]:
    """Return the arguments that an input schema annotates with a header.

    Raises:
        AnnotationError: an annotation is invalid.

    """
    found: dict[str, Param] = {}
    for path, part in _annotated(schema, ()):
        name = part[ANNOTATION]
        if not path:
            raise AnnotationError(f"its {ANNOTATION} is not on a property")
        if not isinstance(name, str) or not TOKEN.fullmatch(name):
            raise AnnotationError(f"its {ANNOTATION} is not a valid header name")
        if part.get("type") not in _TYPES:
            raise AnnotationError(f"its {ANNOTATION} {name} is not on a string, integer or boolean")
        if name.lower() in found:
            raise AnnotationError(f"its {ANNOTATION} {name} occurs twice")
        found[name.lower()] = Param(path, f"{PREFIX}{name}".encode())
    return tuple(found.values())


def header_lines(params: tuple[Param, ...], arguments: bytes) -> bytes:
    """Return the header lines for these arguments. Absent and null arguments have none."""
    values = msgspec.json.decode(arguments)
    lines = b""
    for param in params:
        text = text_of(value_at(values, param.path))
        if text is not None:
            lines += b"%b: %b\r\n" % (param.header, encoded(text).encode())
    return lines


def _annotated(
    schema: Any, path: tuple[str, ...] | None
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield every annotated part of a schema with its path.

    The path is empty outside of properties.
    """
    if isinstance(schema, list):
        for item in schema:
            yield from _annotated(item, None)
    elif isinstance(schema, dict):
        if ANNOTATION in schema:
            yield path or (), schema
        for inner, part in _parts(schema, path):
            yield from _annotated(part, inner)


def _parts(
    schema: dict[str, Any], path: tuple[str, ...] | None
) -> Iterator[tuple[tuple[str, ...] | None, Any]]:
    """Yield the subschemas of a schema with their paths.

    A path is None if a keyword other than `properties` leads to the subschema.
    """
    for keyword, value in schema.items():
        if keyword == "properties" and isinstance(value, dict):
            for name, part in value.items():
                yield None if path is None else (*path, name), part
        elif keyword not in _DATA and keyword != ANNOTATION:
            yield None, value
