"""Command that shows the version of Toolbus, and of what it runs on."""

import json
import platform
import re
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from toolbus_cli.commands.options import AsJson
from toolbus_cli.commands.output import say, show_json
from toolbus_cli.errors import CommandError
from toolbus_cli.launcher.engines import nats_binary, valkey_binary
from toolbus_common.mcp.revisions import LEGACY, MODERN

SECONDS = 5.0  # for one program to print its version
NAME = "toolbus"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NUMBER = re.compile(r"\bv?=?(\d+(?:\.\d+)+)")


def show_version(*, as_json: AsJson = False) -> None:
    """Show the version, the commit, the MCP revisions and the embedded engines."""
    about = described()
    if as_json:
        show_json(about)
        return
    say(
        f"toolbus {about['version']}, commit {about['commit'] or 'unknown'}",
        f"Python {about['python']} on {about['platform']}",
        f"MCP revisions {', '.join(about['protocol_revisions'])}",
        *(_line(name, engine) for name, engine in about["engines"].items()),
    )


def described() -> dict[str, Any]:
    """Return the versions that the command shows."""
    return {
        "version": version(NAME),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "protocol_revisions": [*MODERN, *LEGACY],
        "engines": {
            "nats-server": _program(nats_binary),
            "valkey-server": _program(valkey_binary),
            "clickhouse": _package("chdb-core"),
        },
    }


def commit() -> str | None:
    """Return the commit of this installation; None if it is unknown.

    A release contains it, pip records it for an installation from a repository, and git returns it
    for a checkout, with `-dirty` if files were changed.
    """
    released = files("toolbus_cli").joinpath("commit.txt").read_text().strip()
    if _COMMIT.fullmatch(released):
        return released
    origin = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    if recorded := origin.get("vcs_info", {}).get("commit_id"):
        return str(recorded)
    checkout = Path(__file__).resolve().parents[4]
    return _described_by_git(checkout) if (checkout / ".git").exists() else None


def _described_by_git(checkout: Path) -> str | None:
    words = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    return _output([*words, "--abbrev=40"]) or None


def _program(find: Callable[[], str]) -> dict[str, str | None]:
    """Return the version and the path of an engine's program; `missing` states what to do."""
    try:
        path = find()
    except CommandError as error:
        return {"version": None, "missing": error.message}
    found = _NUMBER.search(_output([path, "--version"]))
    return {"version": found[1] if found else None, "path": path}


def _package(name: str) -> dict[str, str | None]:
    try:
        return {"version": version(name), "package": name}
    except PackageNotFoundError:
        missing = f"{name} is not installed; reinstall Toolbus, or set TOOLBUS_CLICKHOUSE_URL"
        return {"version": None, "missing": missing}


def _output(words: list[str]) -> str:
    try:
        ended = subprocess.run(  # noqa: S603 - git and our engines
            words, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""


def _line(name: str, engine: dict[str, str | None]) -> str:
    if missing := engine.get("missing"):
        return f"No {name}: {missing}"
    return f"{name} {engine['version'] or 'unknown'} ({engine.get('path') or engine['package']})"
