"""What MCP 2026-07-28 repeats of a message in headers: its version, method, name and arguments."""

import base64
import re
from typing import Any

VERSION = "io.modelcontextprotocol/protocolVersion"
_NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_SENTINEL, _END = "=?base64?", "?="
_DEEPEST = 16

Paths = dict[str, tuple[str, ...]]  # header -> where its value is in the arguments


def version_of(message: dict[str, Any]) -> str:
    """The version a message says it is of; empty for the eras with a handshake."""
    meta = params_of(message).get("_meta")
    told = meta.get(VERSION) if isinstance(meta, dict) else None
    return told if isinstance(told, str) else ""


def params_of(message: dict[str, Any]) -> dict[str, Any]:
    """The params; empty when there are none."""
    params = message.get("params")
    return params if isinstance(params, dict) else {}


def encoded(value: str) -> str:
    """A value as headers carry it: plain ASCII as it is, anything else as base64 of UTF-8."""
    if _PLAIN.fullmatch(value) and not (value.startswith(_SENTINEL) and value.endswith(_END)):
        return value
    return f"{_SENTINEL}{base64.b64encode(value.encode()).decode()}{_END}"


def modern_headers(message: dict[str, Any], tools: dict[str, Paths]) -> dict[str, str]:
    """The headers of a request of MCP 2026-07-28."""
    method, params = str(message["method"]), params_of(message)
    found = {"MCP-Protocol-Version": encoded(version_of(message)), "Mcp-Method": encoded(method)}
    name = params.get(_NAMED.get(method, ""))
    if isinstance(name, str):
        found["Mcp-Name"] = encoded(name)
        if method == "tools/call":
            for header, path in tools.get(name, {}).items():
                text = _text(_at(params.get("arguments"), path))
                if text is not None:
                    found[f"Mcp-Param-{header}"] = encoded(text)
    return found


def wanted_by(result: Any) -> dict[str, Paths]:
    """For each tool of a list, the arguments it wants repeated."""
    tools = result.get("tools") if isinstance(result, dict) else None
    return {
        tool["name"]: _annotated(tool.get("inputSchema"))
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, dict) and isinstance(tool.get("name"), str)
    }


def _annotated(schema: Any) -> Paths:
    found: Paths = {}
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
            header = inner.get("x-mcp-header")
            if isinstance(header, str) and _TOKEN.fullmatch(header):
                found[header] = path
    return found


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        arguments = arguments.get(step) if isinstance(arguments, dict) else None
    return arguments


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | str) else None
