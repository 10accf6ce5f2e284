"""HTTP headers that repeat a message's version, method, name and arguments (MCP 2026-07-28)."""

from typing import Any

from toolbus_common.mcp.param_headers import (
    NAMED,
    PREFIX,
    TOKEN,
    annotated,
    encoded,
    text_of,
    value_at,
)

VERSION = "io.modelcontextprotocol/protocolVersion"

Paths = dict[str, tuple[str, ...]]  # header -> path of its value in the arguments


def version_of(message: dict[str, Any]) -> str:
    """Return the protocol version in a message; empty for the session-based family."""
    meta = params_of(message).get("_meta")
    version = meta.get(VERSION) if isinstance(meta, dict) else None
    return version if isinstance(version, str) else ""


def params_of(message: dict[str, Any]) -> dict[str, Any]:
    """Return the params of a message, or an empty dictionary if it has no params object."""
    params = message.get("params")
    return params if isinstance(params, dict) else {}


def modern_headers(message: dict[str, Any], tools: dict[str, Paths]) -> dict[str, str]:
    """Return the headers that MCP 2026-07-28 requires; `tools` maps tool names to headers."""
    method, params = str(message["method"]), params_of(message)
    found = {"MCP-Protocol-Version": encoded(version_of(message)), "Mcp-Method": encoded(method)}
    name = params.get(NAMED.get(method, ""))
    if isinstance(name, str):
        found["Mcp-Name"] = encoded(name)
        if method == "tools/call":
            for header, path in tools.get(name, {}).items():
                text = text_of(value_at(params.get("arguments"), path))
                if text is not None:
                    found[f"{PREFIX}{header}"] = encoded(text)
    return found


def wanted_by(result: Any) -> dict[str, Paths]:
    """Return the arguments that must be repeated as headers, by tool name."""
    tools = result.get("tools") if isinstance(result, dict) else None
    return {
        tool["name"]: _annotated(tool.get("inputSchema"))
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, dict) and isinstance(tool.get("name"), str)
    }


def _annotated(schema: Any) -> Paths:
    return {name: path for name, path in annotated(schema) if TOKEN.fullmatch(name)}
