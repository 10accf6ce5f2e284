"""The configuration file of each MCP client on this system."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from toolbus_cli.errors import CommandError

_IN_PROJECT = {
    "claude": ".mcp.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".vscode/mcp.json",
    "codex": ".codex/config.toml",
    "gemini": ".gemini/settings.json",
}


def project_file(client: str, project: Path) -> Path:
    """Return a client's file for one project. Raises `CommandError` if there is none."""
    if client not in _IN_PROJECT:
        raise CommandError(f"{client} has no configuration for a project; leave --project out.")
    if not project.is_dir():
        raise CommandError(f"{project} is not a directory; give another with --project.")
    return project / _IN_PROJECT[client]


def user_file(
    client: str,
    home: Path,
    environment: Mapping[str, str] = os.environ,
    platform: str = sys.platform,
) -> Path:
    """Return a client's file for this user."""
    if client == "claude":
        return Path(environment.get("CLAUDE_CONFIG_DIR") or home) / ".claude.json"
    if client == "codex":
        return Path(environment.get("CODEX_HOME") or home / ".codex") / "config.toml"
    if client in ("cursor", "gemini"):
        return home / _IN_PROJECT[client]
    settings = _settings(home, environment, platform)
    if client == "vscode":
        return settings / "Code" / "User" / "mcp.json"
    return settings / "Claude" / "claude_desktop_config.json"


def _settings(home: Path, environment: Mapping[str, str], platform: str) -> Path:
    """Return the directory in which desktop programs keep their settings."""
    if platform == "darwin":
        return home / "Library" / "Application Support"
    if platform == "win32":
        return Path(environment.get("APPDATA") or home / "AppData" / "Roaming")
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
