"""Checks of a strict server on a stateless request, before the method is looked up."""

import base64
import binascii

from .registry import TOOLS
from .wire import (
    CAPABILITIES,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    LEGACY,
    MODERN,
    UNSUPPORTED_VERSION,
    VERSION,
    Json,
    ProtocolFamily,
    RefusedError,
)

Headers = dict[str, str]
NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
_HEAD, _TAIL = "=?base64?", "?="


def family_of(message: Json, headers: Headers) -> ProtocolFamily:
    """Return the family of a message, from its body and its headers."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    if isinstance(meta, dict) and VERSION in meta:
        return ProtocolFamily.MODERN
    if message.get("method") == "initialize" and headers.get("mcp-protocol-version") not in MODERN:
        return ProtocolFamily.LEGACY
    version = headers.get("mcp-protocol-version", "")
    legacy = not version or version in LEGACY or "mcp-session-id" in headers
    return ProtocolFamily.LEGACY if legacy else ProtocolFamily.MODERN


def check_meta(meta: Json) -> None:
    """Check the two required members of `_meta` and the version."""
    if not isinstance(meta.get(VERSION), str) or not isinstance(meta.get(CAPABILITIES), dict):
        message = f"_meta needs {VERSION} and {CAPABILITIES}."
        raise RefusedError(INVALID_PARAMS, message, status=400)


def check_version(meta: Json) -> None:
    """Check that the version is supported."""
    if meta[VERSION] not in MODERN:
        data = {"supported": list(MODERN), "requested": meta[VERSION]}
        raise RefusedError(UNSUPPORTED_VERSION, "This version is not served.", data, status=400)


def check_headers(method: str, params: Json, headers: Headers) -> None:
    """Check that the headers match the body."""
    _same("MCP-Protocol-Version", headers, params["_meta"][VERSION])
    _same("Mcp-Method", headers, method)
    if method in NAMED and isinstance(params.get(NAMED[method]), str):
        _same("Mcp-Name", headers, params[NAMED[method]])
    if method == "tools/call":
        _check_arguments(params, headers)


def _check_arguments(params: Json, headers: Headers) -> None:
    tool = TOOLS.get(str(params.get("name")))
    properties = tool.schema.get("properties", {}) if tool else {}
    arguments = params.get("arguments") or {}
    for name, schema in properties.items():
        if "x-mcp-header" in schema:
            value = arguments.get(name)
            _same(f"Mcp-Param-{schema['x-mcp-header']}", headers, value)


def _same(header: str, headers: Headers, meant: object) -> None:
    result = headers.get(header.lower())
    if (None if result is None else _decoded(header, result)) != meant:
        message = f"The header {header} must repeat the body."
        raise RefusedError(HEADER_MISMATCH, message, status=400)


def _decoded(header: str, value: str) -> str:
    if not (value.startswith(_HEAD) and value.endswith(_TAIL)):
        return value
    try:
        return base64.b64decode(value[len(_HEAD) : -len(_TAIL)], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        message = f"The header {header} is not well encoded."
        raise RefusedError(HEADER_MISMATCH, message, status=400) from error
