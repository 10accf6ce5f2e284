"""The entry of the gateway in the configuration of each MCP client (no I/O)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KEY_VARIABLE = "TOOLBUS_KEY"
DEFAULT_NAME = "toolbus"


@dataclass(frozen=True, slots=True)
class AgentClient:
    """An MCP client: where its file lists servers, and how the file refers to a key.

    `reference` is the text that the file contains instead of the secret; the client replaces it
    with the variable TOOLBUS_KEY, or asks for the key. It is empty if the client supports no
    references.
    """

    name: str
    title: str
    file: str  # as pages show it; empty if it depends on the operating system
    section: str
    entry: Callable[[str, str], dict[str, Any]]  # from the endpoint and the key's secret
    reference: str = ""
    asks: bool = False  # the client asks for the key, so the secret is never in the file
    toml: bool = False


def _headers(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def _claude(endpoint: str, secret: str) -> dict[str, Any]:
    return {"type": "http", "url": endpoint, "headers": _headers(secret)}


def _cursor(endpoint: str, secret: str) -> dict[str, Any]:
    return {"url": endpoint, "headers": _headers(secret)}


def _gemini(endpoint: str, secret: str) -> dict[str, Any]:
    return {"httpUrl": endpoint, "headers": _headers(secret)}


def _codex(endpoint: str, secret: str) -> dict[str, Any]:
    if secret == KEY_VARIABLE:
        return {"url": endpoint, "bearer_token_env_var": KEY_VARIABLE}
    return {"url": endpoint, "http_headers": _headers(secret)}


def _desktop(endpoint: str, secret: str) -> dict[str, Any]:
    arguments = ["connect", "--url", endpoint]
    return {"command": "toolbus", "args": arguments, "env": {KEY_VARIABLE: secret}}


CLIENTS = {
    each.name: each
    for each in (
        AgentClient(
            "claude", "Claude Code", "~/.claude.json", "mcpServers", _claude,
            reference=f"${{{KEY_VARIABLE}}}",
        ),
        AgentClient("claude-desktop", "Claude Desktop", "", "mcpServers", _desktop),
        AgentClient(
            "cursor", "Cursor", "~/.cursor/mcp.json", "mcpServers", _cursor,
            reference=f"${{env:{KEY_VARIABLE}}}",
        ),
        AgentClient(
            "vscode", "VS Code", ".vscode/mcp.json", "servers", _claude,
            reference=f"${{input:{DEFAULT_NAME}}}", asks=True,
        ),
        AgentClient(
            "codex", "Codex", "~/.codex/config.toml", "mcp_servers", _codex,
            reference=KEY_VARIABLE, toml=True,
        ),
        AgentClient(
            "gemini", "Gemini CLI", "~/.gemini/settings.json", "mcpServers", _gemini,
            reference=f"${{{KEY_VARIABLE}}}",
        ),
    )
}  # fmt: skip


def configuration(
    client: AgentClient, endpoint: str, secret: str, name: str = DEFAULT_NAME
) -> dict[str, Any]:
    """Return the part of a client's file that configures the gateway."""
    entry = client.entry(endpoint, client.reference if client.asks else secret)
    prompts = {"inputs": [dict(VSCODE_INPUT)]} if client.asks else {}
    return {**prompts, client.section: {name: entry}}


VSCODE_INPUT = {
    "type": "promptString",
    "id": DEFAULT_NAME,
    "description": "Key of Toolbus",
    "password": True,
}


def as_text(client: AgentClient, data: dict[str, Any]) -> str:
    """Return a configuration as text in the format of the client's file."""
    if client.toml:
        tables = data[client.section].items()
        return "\n".join(_toml_table(client.section, name, entry) for name, entry in tables)
    return json.dumps(data, indent=2)


def _toml_table(section: str, name: str, entry: dict[str, Any]) -> str:
    """Return a table of strings, and of tables of strings, as TOML."""
    lines = [f"{key} = {_toml_value(value)}\n" for key, value in entry.items()]
    return f"[{section}.{name}]\n{''.join(lines)}"


def _toml_value(value: str | dict[str, str]) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    pairs = ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items())
    return f"{{ {pairs} }}"


def claude_command(endpoint: str, secret: str) -> str:
    """Return the command that adds the gateway to Claude Code."""
    header = f"--header 'Authorization: Bearer {secret}'"
    return f"claude mcp add --transport http {DEFAULT_NAME} {endpoint} {header}"
