"""Modules that commands import before they work: they decide how fast a command starts."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from toolbus_cli.app import built, with_every_command
from toolbus_cli.command_line import SUMMARIES

PROGRAM = """
import atexit, json, sys
names = sys.argv.pop()
atexit.register(lambda: open(names, "w").write(json.dumps(sorted(sys.modules))))
from toolbus_cli.main import main
sys.exit(main())
"""
COLLECTING = """
import gc, sys
from toolbus_cli import basic_commands, main
imported = basic_commands._commands
def spied(name):
    module = imported(name)
    print(gc.isenabled(), file=sys.stderr)
    return module
basic_commands._commands = spied
main.main()
print(gc.isenabled(), gc.get_freeze_count() > 0, file=sys.stderr)
"""
LONGEST = 200  # characters; click cuts longer help texts

HELP = {
    "toolbus_cli", "toolbus_cli.main", "toolbus_cli.runner", "toolbus_cli.app",
    "toolbus_cli.basic_commands", "toolbus_cli.command_line", "toolbus_cli.errors",
    "toolbus_common", "toolbus_common.errors",
}  # fmt: skip
CALL = HELP | {
    "toolbus_cli.commands", "toolbus_cli.commands.options", "toolbus_cli.commands.output",
    "toolbus_cli.commands.servers", "toolbus_cli.commands.servers.call", "toolbus_cli.remote",
    "toolbus_cli.remote.contexts", "toolbus_cli.http_client",
    "toolbus_cli.mcp_client", "toolbus_cli.state_dir", "toolbus_cli.views",
    "toolbus_common.definitions", "toolbus_common.definitions.visible_text",
}  # fmt: skip
# Each takes 10 to 400 ms. Typer itself needs pydantic as soon as a command has a parameter.
HEAVY = {
    "asyncio", "cedarpy", "cryptography", "httpx2", "jinja2", "msgspec", "nats", "numpy", "pandas",
    "prometheus_client", "pydantic_settings", "rich", "uvloop", "yaml",
}  # fmt: skip


@contextmanager
def endpoint() -> Iterator[str]:
    """Answer each request with the result of a tool call."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            result = {"content": [{"type": "text", "text": request["params"]["name"]}]}
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/mcp"
    finally:
        server.shutdown()
        server.server_close()


def imported(cwd: Path, *words: str, **environment: str) -> tuple[set[str], str]:
    """Run a command; return the modules it imported, and its output."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, str(cwd / "modules.json")],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return set(json.loads((cwd / "modules.json").read_text())), done.stdout


def completed(cwd: Path, line: str) -> tuple[set[str], str]:
    """Complete a command line in bash."""
    last = str(line.count(" "))
    return imported(cwd, _TOOLBUS_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=last)


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith("toolbus_")}


def test_the_list_of_commands_imports_no_command(tmp_path: Path) -> None:
    modules, shown = imported(tmp_path, "--help")
    assert "doctor" in shown
    assert ours(modules) <= HELP
    assert not (HEAVY | {"pydantic"}) & modules


def test_the_name_of_a_command_is_completed_without_importing_commands(tmp_path: Path) -> None:
    modules, shown = completed(tmp_path, "toolbus d")
    assert shown.split() == ["doctor"]
    assert ours(modules) <= HELP


def test_a_call_imports_neither_the_configuration_nor_the_bus(tmp_path: Path) -> None:
    modules, shown = imported(tmp_path, "call", "--help")
    assert "toolbus call clock__now" in shown
    assert ours(modules) <= CALL
    assert not HEAVY & modules
    with endpoint() as url:
        modules, shown = imported(
            tmp_path, "call", "clock__now", TOOLBUS_KEY="tbk_a", TOOLBUS_URL=url
        )
    assert shown == "clock__now\n"
    assert ours(modules) <= CALL
    assert not HEAVY & modules


def test_the_list_of_commands_shows_the_same_summaries_as_each_help() -> None:
    assert {
        name: command.get_short_help_str(LONGEST)
        for name, command in with_every_command().commands.items()
    } == SUMMARIES


def test_the_name_of_a_command_in_a_group_is_completed(tmp_path: Path) -> None:
    assert completed(tmp_path, "toolbus keys r")[1].split() == ["revoke", "rotate"]


def test_a_command_imports_only_its_own_module(tmp_path: Path) -> None:
    modules, _ = imported(tmp_path, "keys", "list", "--help")
    commands = {name for name in modules if name.startswith("toolbus_cli.commands.access.")}
    assert commands == {"toolbus_cli.commands.access.keys"}


def test_building_the_command_line_adds_no_command() -> None:
    app = built()
    assert (app.registered_groups, app.registered_commands) == ([], [])


def test_garbage_is_collected_again_only_after_the_import_of_the_command() -> None:
    words = [sys.executable, "-c", COLLECTING, "call", "--help"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr.split() == ["False", "True", "True"]
