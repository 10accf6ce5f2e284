"""Headers of MCP 2026-07-28 that repeat parts of the message: encoding and validation."""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

# The methods whose target is repeated in the header Mcp-Name, each with the parameter that contains
# the target.
NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
ANNOTATION = "x-mcp-header"
PREFIX = "Mcp-Param-"  # prefix of the headers that repeat arguments
RAW_PREFIX = PREFIX.lower().encode()  # in the form of ASGI headers
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 section 5.6.2, limited length

_PLAIN = re.compile(r"(?!=\?base64\?)[!-~](?:[ -~]*[!-~])?")
_SENTINEL, _END = "=?base64?", "?="
_DEEPEST = 16


def encoded(value: str) -> str:
    """Return a header value: plain ASCII unchanged, any other text as base64 of UTF-8."""
    if _PLAIN.fullmatch(value):
        return value
    return f"{_SENTINEL}{base64.b64encode(value.encode()).decode()}{_END}"


def decoded(value: bytes) -> str:
    """Return the text of a header value. A malformed encoding is returned unchanged."""
    text = value.decode("latin-1")
    if not (text.startswith(_SENTINEL) and text.endswith(_END)):
        return text
    try:
        inner = text[len(_SENTINEL) : -len(_END)]
        return base64.b64decode(inner, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return text


def text_of(argument: Any) -> str | None:
    """Return the header text that repeats an argument; None if a header cannot represent it."""
    if isinstance(argument, bool):
        return "true" if argument else "false"
    if isinstance(argument, float) and argument.is_integer():
        return str(int(argument))
    return str(argument) if isinstance(argument, int | float | str) else None


def annotated(schema: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the headers that an input schema requires, each with the path of the argument."""
    level: list[tuple[tuple[str, ...], Any]] = [((), schema)]
    for _ in range(_DEEPEST):
        level = [
            ((*path, name), inner)
            for path, outer in level
            if isinstance(outer, dict) and isinstance(outer.get("properties"), dict)
            for name, inner in outer["properties"].items()
            if isinstance(inner, dict)
        ]
        for path, inner in level:
            if isinstance(inner.get(ANNOTATION), str):
                yield inner[ANNOTATION], path


def value_at(arguments: Any, path: tuple[str, ...]) -> Any:
    """Return the argument at a path; None if there is no such argument."""
    for step in path:
        arguments = arguments.get(step) if isinstance(arguments, dict) else None
    return arguments
