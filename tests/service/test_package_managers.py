"""Servers that a package manager fetches and starts, under what holds every process by default."""

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


def upstream_of(bench: CallRunner, declared: Server, state: Path) -> StdioUpstream:
    ways, settings = DialerFactory(STRICT, ConfirmedTargets()), Settings(state_dir=state)
    made = reached(declared, bench.news, ways, {}, settings=settings, name="fetched")
    assert isinstance(made, StdioUpstream)
    return made


@pytest.mark.parametrize(
    ("manager", "command", "tool", "arguments", "said"), FETCHED, ids=["npx", "uvx"]
)
async def test_a_server_that_is_fetched_first_starts_and_is_kept_for_the_next_start(
    manager: str,
    command: tuple[str, ...],
    tool: str,
    arguments: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", f"{NODE.parent}{os.pathsep}{os.environ['PATH']}")
    offline = {"npx": {"npm_config_offline": "true"}, "uvx": {"UV_OFFLINE": "1"}}[manager]
    for env in ({}, offline):
        bench = CallRunner()
        upstream = upstream_of(bench, Server(command=command, env=env, timeout=60), tmp_path)
        try:
            await bench.open(upstream)
            assert said in (await bench.call(tool, arguments)).text
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
    asked = json.loads(line)
    told = known.get(asked["method"])
    if asked["method"] == "tools/call":
        try:
            open(sys.argv[2] + "/new", "w")
        except OSError as error:
            told = {"content": [{"type": "text", "text": str(error)}], "isError": True}
    if "id" in asked:
        said = {"error": {"code": -32601, "message": "?"}} if told is None else {"result": told}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)
"""


async def test_what_a_server_missed_is_told_with_the_line_that_would_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("home/notes", "project", "state", "other"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    bench, project = CallRunner(), tmp_path / "project"
    words = (str(tmp_path / "home" / "notes"), str(project), f"--db={tmp_path / 'other'}")
    secret = str(tmp_path / "state")
    command = (installed("python"), "-c", NAMES_FILES, *words, secret)
    upstream = upstream_of(bench, Server(command=command, cwd=str(project)), tmp_path / "state")
    try:
        await bench.open(upstream)
        with suppress(AssertionError):
            await bench.call("reads")
        missed = upstream.refused_files
    finally:
        await upstream.close()
    notes, other = str(tmp_path / "home" / "notes"), str(tmp_path / "other")
    assert missed == {notes: "read", other: "read", str(project): "write"}, "and no secret of ours"
    assert sorted(lines_for("docs", missed)) == [
        f"servers.docs.files: {{read: [{', '.join(sorted((notes, other)))}]}}",
        f"servers.docs.files: {{write: [{project}]}}",
    ]
