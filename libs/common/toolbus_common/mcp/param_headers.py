"""What MCP 2026-07-28 repeats of a message in headers: said once, for who writes and who checks."""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

# Methods whose subject is repeated in the header Mcp-Name, and the parameter that holds it.
NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
ANNOTATION = "x-mcp-header"
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110, 5.6.2, within bounds

_PLAIN = re.compile(r"(?!=\?base64\?)[!-~](?:[ -~]*[!-~])?")
_SENTINEL, _END = "=?base64?", "?="
_DEEPEST = 16


def encoded(value: str) -> str:
    """A value as headers carry it: plain ASCII as it is, anything else as base64 of UTF-8."""
    if _PLAIN.fullmatch(value):
        return value
    return f"{_SENTINEL}{base64.b64encode(value.encode()).decode()}{_END}"


def decoded(value: bytes) -> str:
    """The value a header carries; what is not well encoded is taken as it stands."""
    text = value.decode("latin-1")
    if not (text.startswith(_SENTINEL) and text.endswith(_END)):
        return text
    try:
        inner = text[len(_SENTINEL) : -len(_END)]
        return base64.b64decode(inner, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return text


def annotated(schema: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The headers an input schema asks for, and where in the arguments their values are."""
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
    """The argument at a path; None where there is none."""
    for step in path:
        arguments = arguments.get(step) if isinstance(arguments, dict) else None
    return arguments
