"""Servers that a package manager downloads and starts, with the default isolation."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from harness.engines.engine import installed
from harness.packages.npm import NODE, NPM
from harness.services.call_runner import CallRunner
from toolbus_common.config import Server
from toolbus_common.config_store.operator_targets import ConfirmedTargets
from toolbus_common.egress.policy import STRICT
from toolbus_executor.settings import Settings
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.factory import reached
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream
from toolbus_executor.upstreams.process.isolation_status import lines_for

NPX = (str(NODE), str(NPM.with_name("npx-cli.js")), "-y", "@modelcontextprotocol/server-everything")
FETCHED = [
    ("npx", NPX, "echo", {"message": "hello"}, "hello"),
    ("uvx", (installed("uvx"), "mcp-server-time"), "get_current_time", {"timezone": "UTC"}, "UTC"),
]


def upstream_of(client: CallRunner, declared: Server, state: Path) -> StdioUpstream:
    dialers, settings = DialerFactory(STRICT, ConfirmedTargets()), Settings(state_dir=state)
    upstream = reached(declared, client.news, dialers, {}, settings=settings, name="fetched")
    assert isinstance(upstream, StdioUpstream)
    return upstream


@pytest.mark.parametrize(
    ("manager", "command", "tool", "arguments", "expected"), FETCHED, ids=["npx", "uvx"]
)
async def test_a_downloaded_server_starts_and_is_cached_for_the_next_start(
    manager: str,
    command: tuple[str, ...],
    tool: str,
    arguments: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", f"{NODE.parent}{os.pathsep}{os.environ['PATH']}")
    offline = {"npx": {"npm_config_offline": "true"}, "uvx": {"UV_OFFLINE": "1"}}[manager]
    for env in ({}, offline):
        client = CallRunner()
        upstream = upstream_of(client, Server(command=command, env=env, timeout=60), tmp_path)
        try:
            await client.open(upstream)
            assert expected in (await client.call(tool, arguments)).text
        finally:
            await upstream.close()


NAMES_FILES = """
import json, sys
known = {
    "initialize": {"protocolVersion": "2025-06-18", "serverInfo": {},
                   "capabilities": {"tools": {}}},
    "tools/list": {"tools": [{"name": "reads", "inputSchema": {"type": "object"}}]},
}
print("cannot open '%s': No such file or directory" % sys.argv[1], file=sys.stderr, flush=True)
for line in sys.stdin:
    message = json.loads(line)
    result = known.get(message["method"])
    if message["method"] == "tools/call":
        try:
            open(sys.argv[2] + "/new", "w")
        except OSError as error:
            result = {"content": [{"type": "text", "text": str(error)}], "isError": True}
    if "id" in message:
        body = {"error": {"code": -32601, "message": "?"}} if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}), flush=True)
"""


async def test_missing_files_are_reported_with_the_configuration_that_adds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("home/notes", "project", "state", "other"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    client, project = CallRunner(), tmp_path / "project"
    words = (str(tmp_path / "home" / "notes"), str(project), f"--db={tmp_path / 'other'}")
    secret = str(tmp_path / "state")
    command = (installed("python"), "-c", NAMES_FILES, *words, secret)
    upstream = upstream_of(client, Server(command=command, cwd=str(project)), tmp_path / "state")
    try:
        await client.open(upstream)
        with suppress(AssertionError):
            await client.call("reads")
        missed = upstream.denied_files
    finally:
        await upstream.close()
    notes, other = str(tmp_path / "home" / "notes"), str(tmp_path / "other")
    assert missed == {notes: "read", other: "read", str(project): "write"}, (
        "and no file of the state directory"
    )
    assert sorted(lines_for("docs", missed)) == [
        f"servers.docs.files: {{read: [{', '.join(sorted((notes, other)))}]}}",
        f"servers.docs.files: {{write: [{project}]}}",
    ]
