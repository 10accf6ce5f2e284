"""The command line as a shell sees it: help, and messages instead of tracebacks."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.engines.engine import installed
from toolbus_cli import runner
from toolbus_cli.app import built

COMMANDS = (
    "up", "run", "provision", "nats-config", "status", "doctor", "apply", "get", "import",
    "tools", "call", "keys create", "keys list", "keys revoke", "keys rotate", "audit query",
    "audit tail", "audit backfill", "audit dead-letters show", "servers drain", "servers undrain",
    "servers reset",
)  # fmt: skip


def toolbus(cwd: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [installed("toolbus"), *words],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def refused(cwd: Path, *words: str, **environment: str) -> str:
    """Run a command that must fail; return the message."""
    ended = toolbus(cwd, *words, **environment)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended.stderr.strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_the_command_with_an_example(command: str) -> None:
    words = command.split()
    ended = CliRunner().invoke(built(), [*words, "--help"])
    assert ended.exit_code == 0
    assert "Examples:" in ended.stdout
    assert f"toolbus {command}" in ended.stdout


def test_help_lists_every_command(tmp_path: Path) -> None:
    listed = toolbus(tmp_path, "--help").stdout.split("Commands:")[1]
    names = {line.split()[0] for line in listed.splitlines() if line.strip()}
    assert names >= {command.split()[0] for command in COMMANDS}


@pytest.mark.parametrize(
    "command",
    ["status", "tools", "get keys", "keys list", "audit tail", "keys revoke bot", "provision"],
)
def test_without_a_running_gateway_the_error_advises_to_start_it(
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert runner.main(command.split()) == 1
    shown = capsys.readouterr()
    message = shown.err.strip()
    assert (shown.out, "\n" in message) == ("", False)
    assert "'toolbus up'" in message


def test_an_unreachable_bus_is_reported_with_one_message(tmp_path: Path) -> None:
    message = refused(tmp_path, "status", TOOLBUS_NATS_URL="nats://127.0.0.1:9")
    assert "nats://127.0.0.1:9" in message
    assert "\n" not in message


@pytest.mark.parametrize("words", [["policies"], ["policy", "policy"], []])
def test_an_unknown_service_is_reported_with_the_known_ones(
    tmp_path: Path, words: list[str]
) -> None:
    assert "ingress, policy, executor" in refused(tmp_path, "run", *words)


def test_an_unknown_command_is_rejected(tmp_path: Path) -> None:
    assert "No such command 'upp'. Did you mean 'up'?" in refused(tmp_path, "upp")


def test_an_invalid_file_stops_up_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "toolbus.yaml").write_text("keys:\n  bot: {tool: []}\n  two: {team: unknown}\n")
    message = refused(tmp_path, "up").splitlines()
    assert [each.partition(" ")[0] for each in message[:-1]] == [
        "toolbus.yaml:2:",
        "toolbus.yaml:3:",
    ]
    assert message[-1] == "toolbus.yaml has 2 errors; nothing was applied."
    assert not list((tmp_path / ".toolbus").glob("nats*"))


def test_a_port_in_use_stops_up_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        message = refused(tmp_path, "up", "--port", str(port))
    assert message == f"Port {port} on 127.0.0.1 is already in use; choose another with --port."
    assert not list((tmp_path / ".toolbus").glob("nats*"))


def test_arguments_that_are_no_json_are_rejected_before_the_call(tmp_path: Path) -> None:
    assert "not JSON" in refused(tmp_path, "call", "a__b", "{", "--key", "k")
    assert "JSON object" in refused(tmp_path, "call", "a__b", "[]", "--key", "k")
    assert "TOOLBUS_KEY" in refused(tmp_path, "call", "a__b")


def test_an_unreachable_endpoint_is_reported_with_one_message(tmp_path: Path) -> None:
    message = refused(
        tmp_path, "call", "a__b", TOOLBUS_KEY="k", TOOLBUS_URL="http://127.0.0.1:9/mcp"
    )
    assert "Cannot connect to" in message


def test_the_nats_configuration_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    ended = toolbus(tmp_path, "nats-config", "made", "--json")
    users = json.loads(ended.stdout)["users"]
    written = json.loads((tmp_path / "made" / "nats.conf").read_text())
    named = {user["nkey"] for each in written["accounts"].values() for user in each["users"]}
    assert named == set(users.values())
    private = [tmp_path / "made" / "nats.conf", *(tmp_path / "made" / "nkeys").iterdir()]
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    before = (tmp_path / "made" / "nkeys" / "policy.seed").read_text()
    toolbus(tmp_path, "nats-config", "made")
    assert (tmp_path / "made" / "nkeys" / "policy.seed").read_text() == before


def test_strict_durability_is_written_for_every_server_of_a_cluster(tmp_path: Path) -> None:
    nodes = [word for name in ("n1", "n2", "n3") for word in ("--node", f"{name}=10.0.0.1")]
    toolbus(tmp_path, "nats-config", "made", "--durability", "strict", *nodes)
    written = [json.loads(path.read_text()) for path in (tmp_path / "made").glob("nats-*.conf")]
    assert [each["jetstream"]["sync_interval"] for each in written] == ["always"] * 3


def test_import_never_overwrites_a_file(tmp_path: Path) -> None:
    (tmp_path / "client.json").write_text('{"mcpServers": {"a": {"command": "x"}}}')
    words = ("import", "client.json", "-o", "toolbus.yaml")
    assert toolbus(tmp_path, *words).returncode == 0
    assert "--force" in refused(tmp_path, *words)


def test_doctor_reports_problems_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "toolbus.yaml").write_text("keys: 3\n")
    ended = toolbus(tmp_path, "doctor", "--json")
    bad = [check for check in json.loads(ended.stdout) if not check["ok"]]
    assert [check["what"] for check in bad] == ["configuration"]
    assert ended.returncode == 1


def test_running_services_imports_nothing_of_the_cli() -> None:
    code = (
        "import sys; sys.argv = ['toolbus', 'run', 'unknown']\n"
        "from toolbus_cli.main import main\n"
        "main(); print(sorted({'typer', 'rich', 'yaml', 'click', 'jinja2'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True
    )
    assert ended.stdout.strip() == "[]"
