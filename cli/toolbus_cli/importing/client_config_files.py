"""Reader of the configuration files of MCP clients.

The supported forms are `mcpServers` (Claude, Cursor, Windsurf, Cline, Gemini …) and the forms of
VS Code, Zed, Codex, Goose and opencode. JSON may have comments and trailing commas.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolbus_cli.errors import CommandError
from toolbus_common.config_store.loading.document import read

LARGEST = 4 << 20
# The keys that lead to the servers in a client's file.
SECTIONS = (
    ("mcpServers",),
    ("mcp_servers",),  # Codex
    ("servers",),  # VS Code, mcp.json
    ("mcp", "servers"),  # VS Code, settings.json
    ("mcp.servers",),
    ("context_servers",),  # Zed
    ("extensions",),  # Goose
    ("mcp", "client_configs"),  # Bifrost
    ("registry",),  # a catalogue of Docker
    ("mcp",),  # opencode
)
# Sections in which a client also has settings of its own.
OWN_SETTINGS = (("mcp",), ("extensions",), ("registry",))
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)


def servers_in(path: Path) -> dict[str, Any]:
    """Return the servers of a client's file, each as the client wrote it. Raises `CommandError`."""
    data = _parsed(path)
    found: dict[str, Any] = {}
    for section in SECTIONS:
        for name, server in _entries(_at(data, section)):
            if isinstance(server, dict) or section not in OWN_SETTINGS:
                found.setdefault(name, server)
    if not found:
        raise CommandError(
            f"{path} has no MCP servers; give a file with mcpServers or servers (JSON), "
            "mcp_servers (TOML) or extensions (YAML)."
        )
    return found


def _parsed(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST:
            raise CommandError(f"{path} is larger than {LARGEST >> 20} MiB; give another file.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise CommandError(f"{path} cannot be read ({reason}); give another file.") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8 text; give another file.") from error
    kind = {".toml": "TOML", ".yaml": "YAML", ".yml": "YAML"}.get(path.suffix.lower(), "JSON")
    try:
        if kind == "TOML":
            return tomllib.loads(text)
        return _parsed_yaml(text) if kind == "YAML" else json.loads(_plain_json(text))
    except (ValueError, RecursionError) as error:
        shown = " ".join(str(error).split())[:200]
        raise CommandError(f"{path} is not valid {kind} ({shown}); give another file.") from error


def _parsed_yaml(text: str) -> Any:
    """Return the data of a YAML text, bounded after its aliases. Raises `ValueError`."""
    document = read(text)
    if document.problems:
        raise ValueError(str(document.problems[0]))
    return document.data


def _plain_json(text: str) -> str:
    """Return JSON without comments, and without commas before a closing bracket."""
    bare = _TOKEN.sub(lambda found: found[0] if found[0][0] in '",' else " ", text)
    return _TOKEN.sub(lambda found: found[0] if found[0][0] == '"' else "", bare)


def _at(data: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _entries(section: Any) -> Iterator[tuple[str, Any]]:
    """Yield each server with its name; a section is a table, or a list of named objects."""
    if isinstance(section, dict):
        yield from ((str(name), server) for name, server in section.items() if name != "servers")
    elif isinstance(section, list):
        for server in section:
            if isinstance(server, dict) and isinstance(server.get("name"), str):
                yield server["name"], server
