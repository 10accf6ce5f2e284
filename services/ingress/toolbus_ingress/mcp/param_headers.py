"""Arguments repeated in headers (`x-mcp-header`, MCP 2026-07-28): held against the body."""

import re
from typing import Any

from toolbus_common.mcp.param_headers import annotated, decoded, value_at
from toolbus_ingress.http.request_guard import Headers

PREFIX = b"mcp-param-"
_INTEGER = re.compile(r"-?[0-9]{1,400}")  # longer digits Python itself refuses to read


def declared(schema: Any) -> dict[str, tuple[str, ...]]:
    """The headers an input schema asks for, in lower case, and where their values are."""
    return {name.lower(): path for name, path in annotated(schema)}


def mismatch(
    wanted: dict[str, tuple[str, ...]],
    arguments: dict[str, Any],
    headers: Headers,
) -> str:
    """The first header that does not repeat its argument; empty when all do."""
    for name, path in wanted.items():
        told = headers.get(PREFIX + name.encode("latin-1", "replace"))
        if not _agrees(None if told is None else decoded(told), value_at(arguments, path)):
            return f"Mcp-Param-{name}"
    return ""


def _agrees(told: str | None, meant: Any) -> bool:
    if meant is None or told is None:
        return told is None and meant is None
    if isinstance(meant, bool):
        return told == ("true" if meant else "false")
    if isinstance(meant, int):
        return _INTEGER.fullmatch(told) is not None and int(told) == meant
    return isinstance(meant, str) and told == meant
