"""The text that `toolbus up` prints when it is ready: endpoint, keys and next steps."""

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from toolbus_common.agent_clients.configurations import CLIENTS, claude_command, configuration
from toolbus_common.config.models.providers import Kind


@dataclass(frozen=True, slots=True)
class Welcome:
    """The contents of the banner. `secrets` are shown here once."""

    endpoint: str
    state_dir: str
    servers: list[dict[str, Any]]
    demo: bool
    console: str = ""  # an address with a one-time link
    ops: dict[str, str] = field(default_factory=dict)  # the operations listener of each service
    key: str = ""
    key_declared: bool = False  # whether the configuration sets the key's secret
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    seconds: float = 0.0
    command: str = "toolbus"  # as the operator's shell finds it
    has_models: bool = False  # whether a provider of models is configured


def banner(welcome: Welcome) -> str:
    """Return the text of the banner."""
    parts = [
        f"\nToolbus is ready after {welcome.seconds:.1f} s.  {welcome.endpoint}",
        f"Console (signs one browser in, within 15 minutes):\n  {welcome.console}",
        _servers(welcome),
        _keys(welcome),
        _clients(welcome),
        _models(welcome),
        _next(welcome),
        _operations(welcome),
        "Press Ctrl-C to drain and stop.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def new_keys(secrets: dict[str, str]) -> str:
    """Return the text for newly created secrets, which are shown once."""
    lines = [f"  {name:12} {secret}" for name, secret in secrets.items()]
    return "\n".join(["New keys (shown once, only a hash is stored):", *lines])


def _servers(welcome: Welcome) -> str:
    lines = []
    for server in welcome.servers:
        why = f"  {server['last_failure']}" if server["state"] != "ready" else ""
        lines.append(f"  {server['name']:12} {server['state']}{_offered(server)}{why}")
    return "\n".join(["Servers:", *lines]) if lines else ""


def _offered(server: dict[str, Any]) -> str:
    """Return the number of a server's tools, or of a provider's known models."""
    count, is_provider = server["tools"], server.get("kind") in get_args(Kind)
    if is_provider and not count:
        return ""
    return f", {count} {'model' if is_provider else 'tool'}{'' if count == 1 else 's'}"


def _operations(welcome: Welcome) -> str:
    services: dict[str, list[str]] = {}
    for service, url in welcome.ops.items():
        services.setdefault(url, []).append(service)
    lines = [f"  {url:24} {', '.join(names)}" for url, names in services.items()]
    return "\n".join(["Health and metrics (/readyz, /metrics):", *lines]) if lines else ""


def _keys(welcome: Welcome) -> str:
    if welcome.secrets:
        return new_keys(welcome.secrets)
    if welcome.key_declared:
        return f"Key: {welcome.key}, with the secret from your configuration."
    if welcome.key:
        return (
            f"Key: {welcome.key}; its secret was shown when it was created. "
            f"'{welcome.command} keys rotate {welcome.key}' creates a new one."
        )
    return "Keys: none yet; 'toolbus keys create NAME --tools \"*\"' creates one."


def _clients(welcome: Welcome) -> str:
    secret = welcome.secrets.get(welcome.key) or "<the key's secret>"
    return "\n".join(
        [
            "Claude Code:",
            f"  {claude_command(welcome.endpoint, secret)}",
            "Cursor (~/.cursor/mcp.json):",
            f"  {json.dumps(configuration(CLIENTS['cursor'], welcome.endpoint, secret))}",
            f"  Or: TOOLBUS_KEY={secret} {welcome.command} client install cursor",
            "      (also: claude, claude-desktop, vscode, codex, gemini)",
        ]
    )


def _models(welcome: Welcome) -> str:
    if not welcome.has_models:
        return ""
    base = welcome.endpoint.removesuffix("/mcp")
    return f"Models: base URL {base}/v1 (OpenAI's API) or {base} (Anthropic's), and the key."


def _next(welcome: Welcome) -> str:
    own = welcome.command
    where = "" if welcome.state_dir == ".toolbus" else f" --state-dir {welcome.state_dir}"
    if not welcome.demo:
        return f"Next: {own} status{where}; {own} tools{where}; {own} audit tail{where}"
    secret = welcome.secrets.get(welcome.key) or "<the key's secret>"
    return "\n".join(
        [
            "Try, in another terminal:",
            f"  export TOOLBUS_KEY={secret}",
            f'  {own} call notes__add \'{{"text": "hello"}}\'{where}   # allowed, costs $0.01',
            f"  {own} call notes__clear{where}                    # not granted: unknown tool",
            f"  {own} audit tail{where}                           # both, as rows",
        ]
    )


def shown_path(path: Path) -> str:
    """Return a path relative to the current directory, if it is in there."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def shown_command() -> str:
    """Return a command that starts `toolbus` in the operator's shell: its name or its path."""
    return "toolbus" if shutil.which("toolbus") else os.path.relpath(sys.argv[0])
