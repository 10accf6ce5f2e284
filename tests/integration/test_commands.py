"""`toolbus up` and the commands, as used at a terminal.

The demo is a real process, and so are the commands of the first session. All others are forked.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.audit.written_files import files_in
from harness.engines.engine import installed, own_port
from harness.engines.migrated_tables import migrated
from harness.gateway.forked_commands import PROGRAM, run_forked
from harness.gateway.forked_services import Forked, Streams
from toolbus_cli.installation import operator_bus
from toolbus_cli.state_dir import State
from toolbus_common.service.names import SERVICES

PATIENCE = 120.0
SECRET = "a-declared-secret-of-some-length"
ENVIRONMENT = {name: value for name, value in os.environ.items() if "TOOLBUS" not in name}


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    give_up = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < give_up, f"never came: {what}"
        time.sleep(0.05)
    return value


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@dataclass
class Up:
    """One directory with an installation in it."""

    directory: Path
    port: int = field(default_factory=own_port)
    process: Forked | subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def ready(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads((self.directory / "ready.json").read_text())
        return body

    def start(self, *words: str, forks: bool = False) -> None:
        """Start the installation, and return when it is ready."""
        words = ("up", "--port", str(self.port), "--ready-file", "ready.json", *words)
        log, ready = self.directory / "log", self.directory / "ready.json"
        if forks:
            migrated(self.directory / ".toolbus")
            streams = Streams(log, log, directory=self.directory)
            self.process = Forked(PROGRAM, words, ENVIRONMENT, log, streams)
        else:
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "toolbus_cli.main", *words],
                    cwd=self.directory,
                    env=ENVIRONMENT,
                    stdout=output,
                    stderr=output,
                )
        process = self.process
        wait_for(lambda: ready.exists() or process.poll() is not None, "ready")
        assert ready.exists(), self.log

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop the installation, and return the exit code of the launcher."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def started(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the installed program."""
        return subprocess.run(
            [installed("toolbus"), *words],
            cwd=self.directory,
            env={**ENVIRONMENT, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def toolbus(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a forked process."""
        return run_forked(words, self.directory, {**ENVIRONMENT, **environment})

    def json(self, *words: str) -> Any:
        result = self.toolbus(*words, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def until_called(self, tool: str, key: str) -> None:
        """Wait until the tool of a server that has just started answers."""
        wait_for(lambda: self.toolbus("call", tool, TOOLBUS_KEY=key).returncode == 0, tool)

    def refused(self, *words: str, **environment: str) -> str:
        """Run a command that must fail without a stack trace, and return its standard error."""
        result = self.toolbus(*words, **environment)
        assert result.returncode != 0
        assert "Traceback" not in result.stderr
        return result.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run the demo."""
    up = Up(tmp_path_factory.mktemp("demo"))
    up.start()
    for tool in ("clock__now", "notes__list"):
        up.until_called(tool, up.ready["key"])
    yield up
    if up.process is not None and up.process.poll() is None:
        up.stop()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Up]:
    """Provide a directory in which a test starts its own installation."""
    up = Up(tmp_path)
    yield up
    if up.process is not None and up.process.poll() is None:
        up.stop()


def test_a_first_session_shows_tools_a_call_a_denial_and_its_row(demo: Up) -> None:
    key = demo.ready["key"]
    assert key in demo.log
    listed = demo.started("tools", "--as", "demo", "--json")
    tools = {tool["name"] for tool in json.loads(listed.stdout)}
    assert {"clock__now", "notes__add"} <= tools
    assert "notes__clear" not in tools
    assert "notes__clear" in {tool["name"] for tool in demo.json("tools")}
    result = demo.started("call", "notes__add", '{"text": "hello"}', TOOLBUS_KEY=key)
    assert result.returncode == 0, result.stderr
    assert "Unknown tool" in demo.refused("call", "notes__clear", TOOLBUS_KEY=key)
    denied = "SELECT key FROM events WHERE event = 'call.denied' AND tool = 'clear'"
    rows = wait_for(lambda: demo.json("audit", "query", denied), "the row of the denial")
    assert rows == [{"key": "demo"}]
    exported = demo.toolbus("audit", "export", "out", "--format", "jsonl", "--event", "call.den*")
    # Calls of the fixture, made while its servers still connected, may have been denied as well.
    events = [json.loads(line) for line in (demo.directory / "out").read_text().splitlines()]
    assert exported.stdout == f"out: {len(events)} event{'s' * (len(events) > 1)}.\n"
    assert {event["event"] for event in events} == {"call.denied"}
    assert [event["key"] for event in events if event["tool"] == "clear"] == ["demo"]
    assert "whole log" in demo.refused("audit", "export", "out.zip", "--until", "2026-01-01")


def test_analysts_run_saved_queries_and_write_a_report(demo: Up) -> None:
    demo.until_called("clock__now", demo.ready["key"])
    request = ("audit", "query", "--saved", "who-called")
    called = {"key": "demo", "tool": "now", "ended": "call.completed"}.items()
    wait_for(
        lambda: any(called <= row.items() for row in demo.json(*request)),
        "the call is among who called",
    )
    page = demo.directory / "report.html"
    assert "calls from" in demo.toolbus("audit", "report", "--html", str(page)).stdout
    assert "clock__now" in page.read_text()
    tail = ("audit", "tail", "--json", "--event", "call.c*", "--key", "demo")

    def outcomes() -> list[str]:
        return demo.toolbus(*tail).stdout.splitlines()

    message = wait_for(outcomes, "its outcome")
    assert {json.loads(line)["event"] for line in message} == {"call.completed"}


def test_private_files_are_readable_by_their_owner_only(demo: Up) -> None:
    state = Path(demo.ready["state_dir"])
    private = [state, demo.directory / "ready.json", state / "run.json", *state.glob("nkeys/*")]
    private += [state / "nats" / "nats.conf", state / "valkey" / "valkey.conf"]
    assert [path for path in private if path.stat().st_mode & 0o077] == []


def test_no_secret_of_a_key_is_in_the_state_directory(demo: Up) -> None:
    key = demo.ready["key"].encode()
    files = dict(files_in(Path(demo.ready["state_dir"])))
    assert files
    assert [path for path, content in files.items() if key in content] == []


def test_status_and_doctor_report_a_healthy_installation(demo: Up) -> None:
    def all_ready() -> Any:
        result = json.loads(demo.toolbus("status", "--json").stdout)
        ready = {service["service"] for service in result["services"] if service["ready"]}
        return ready == set(SERVICES) and result

    result = wait_for(all_ready, "every service is ready")
    assert {server["name"] for server in result["servers"]} == {"clock", "notes"}
    assert [check for check in demo.json("doctor") if not check["ok"]] == []


def test_a_created_key_is_valid_until_it_is_revoked(demo: Up) -> None:
    key = demo.json("keys", "create", "bob", "--tools", "clock__*", "--budget", "2/day")
    wait_for(
        lambda: demo.toolbus("call", "clock__now", TOOLBUS_KEY=key["secret"]).returncode == 0,
        "the key is valid",
    )
    assert "already" in demo.refused("keys", "create", "bob")
    demo.json("keys", "revoke", "bob")
    wait_for(
        lambda: "revoked or expired" in demo.toolbus(
            "call", "clock__now", TOOLBUS_KEY=key["secret"]
        ).stderr,
        "the key is invalid",
    )  # fmt: skip
    assert {k["name"]: k["state"] for k in demo.json("keys", "list")}["bob"] == "revoked"


def test_a_second_launcher_is_rejected_with_a_reason(demo: Up) -> None:
    assert "is already running" in demo.refused("up", "--port", str(own_port()))


def test_a_port_in_use_is_reported(directory: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as exported:
        port = exported.getsockname()[1]
        assert directory.refused("up", "--port", str(port)) == (
            f"Port {port} on 127.0.0.1 is already in use; choose another with --port.\n"
        )


def test_an_invalid_file_starts_nothing(directory: Up) -> None:
    (directory.directory / "toolbus.yaml").write_text("keys:\n  a: {tols: []}\n  b: {team: x}\n")
    result = directory.refused("up", "--port", str(directory.port)).splitlines()
    assert [line.split(":")[1] for line in result[:2]] == ["2", "3"]
    assert not (directory.directory / ".toolbus" / "nats").exists()


def test_a_changed_file_is_applied_and_an_invalid_one_is_not(directory: Up) -> None:
    file = directory.directory / "toolbus.yaml"
    text = f'keys:\n  a: {{secret: "{SECRET}", tools: ["x__*"]}}\n'
    file.write_text(text)
    directory.start(forks=True)
    assert directory.ready["key"] == SECRET
    file.write_text(text.replace("x__*", "y__*"))
    wait_for(lambda: directory.json("get", "keys", "a")["a"]["tools"] == ["y__*"], "applied")
    file.write_text(text.replace("tools", "tols"))
    wait_for(lambda: "nothing was applied" in directory.log, "the validation errors are logged")
    assert directory.json("get", "keys", "a")["a"]["tools"] == ["y__*"]


def test_a_state_directory_of_an_older_build_is_rejected_with_its_fix(directory: Up) -> None:
    directory.start(forks=True)

    async def fake_older_stream() -> None:
        bus = operator_bus(State(directory.directory / ".toolbus"), directory.ready["nats_url"])
        await bus.open()
        await bus.client.jetstream().add_stream(name="FACTS", subjects=["tb.fact.>"])
        await bus.close()

    asyncio.run(fake_older_stream())
    assert directory.stop() == 0
    message = directory.refused("up", "--port", str(directory.port)).splitlines()[-1]
    assert message.startswith('The NATS server stores the stream "FACTS" of an older build')
    assert "start with an empty state directory" in message
    assert "Export the evidence with the old version" in message


def test_a_second_start_keeps_keys_and_events_fused_or_separate(directory: Up) -> None:
    directory.start(forks=True)
    key = directory.ready["key"]
    directory.until_called("clock__now", key)
    assert directory.stop() == 0
    directory.start("--separate")
    assert directory.ready["key"] == ""
    assert len(directory.ready["pids"]) == 9
    directory.until_called("clock__now", key)
    request = (
        "audit",
        "query",
        "SELECT DISTINCT call_id FROM events WHERE event = 'call.completed'",
    )
    wait_for(lambda: len(directory.json(*request)) == 2, "both calls have their row")


def test_a_command_without_an_installation_reports_the_fix(directory: Up) -> None:
    assert "start one with 'toolbus up'" in directory.refused("status")
    assert "There is no service 'nix'" in directory.refused("run", "nix")


def test_a_key_created_by_command_has_every_limit_of_a_configured_one(demo: Up) -> None:
    key = demo.json(
        "keys", "create", "eve", "--tools", "*", "--deny", "notes__*",
        "--budget", "2/day", "--budget", "1calls/hour", "--rate", "600/minute",
        "--right", "approve",
    )  # fmt: skip
    row = next(row for row in demo.json("keys", "list") if row["name"] == "eve")
    assert row["budget"] == "2/day, 1calls/hour"
    tools = {tool["name"] for tool in demo.json("tools", "--as", "eve")}
    assert {name.partition("__")[0] for name in tools} == {"clock"}
    assert "lists them" in demo.refused("keys", "create", "kim", "--group", "nobody")
    assert key["secret"].startswith("tbk_eve_")


def test_a_killed_service_is_started_again(demo: Up) -> None:
    pid = demo.ready["pids"]["oauth"]
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        services = json.loads(demo.toolbus("status", "--json").stdout)["services"]
        return any(each["service"] == "oauth" and each["pid"] != pid for each in services)

    wait_for(back, "another process of the service")


def test_no_process_outlives_a_killed_launcher(demo: Up) -> None:
    """The demo has ended after this test, which is the last one."""
    pids = [each["pid"] for each in json.loads(demo.toolbus("status", "--json").stdout)["services"]]
    pids += demo.ready["pids"].values()
    demo.stop(signal.SIGKILL)
    wait_for(lambda: all(map(gone, pids)), "every process has ended")
