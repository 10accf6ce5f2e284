"""Compare headers that repeat arguments (`x-mcp-header`, MCP 2026-07-28) with the body."""

import re
from typing import Any

from toolbus_common.mcp.param_headers import PREFIX, RAW_PREFIX, annotated, decoded, value_at
from toolbus_ingress import protocol_versions
from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.protocol_versions import Request

_INTEGER = re.compile(r"-?[0-9]{1,400}")  # Python does not parse much longer integers


def required_headers(schema: Any) -> dict[str, tuple[str, ...]]:
    """Return the lower-case headers that an input schema requires, and their values' paths."""
    return {name.lower(): path for name, path in annotated(schema)}


def check(required: dict[str, tuple[str, ...]], request: Request, headers: Headers) -> None:
    """Raise `ProtocolError` if a header does not repeat its argument."""
    header = first_mismatch(required, request.params.get("arguments", {}), headers)
    if header:
        raise protocol_versions.param_mismatch(header, request.id)


def first_mismatch(
    required: dict[str, tuple[str, ...]],
    arguments: dict[str, Any],
    headers: Headers,
) -> str:
    """Return the first header that does not repeat its argument; empty if every header does."""
    for name, path in required.items():
        raw = headers.get(RAW_PREFIX + name.encode("latin-1", "replace"))
        if not _matches(None if raw is None else decoded(raw), value_at(arguments, path)):
            return f"{PREFIX}{name}"
    return ""


def _matches(header: str | None, argument: Any) -> bool:
    if argument is None or header is None:
        return header is None and argument is None
    if isinstance(argument, bool):
        return header == ("true" if argument else "false")
    if isinstance(argument, int):
        return _INTEGER.fullmatch(header) is not None and int(header) == argument
    return isinstance(argument, str) and header == argument
