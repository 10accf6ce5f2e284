"""Commands in a context: state, checks and recorded events of a gateway on another machine."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clients.admin_client import at, why
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from toolbus_cli import runner
from toolbus_common.admin_api.roles import ROLES

SECRETS: dict[str, str] = {role: f"tba_{role}_e2e-secret-of-remote-commands" for role in ROLES}
BOT = "tbk_bot_e2e-secret-of-remote-commands"
HEADER = "canary-of-a-remote-header"
TOOL = "echo__say"
COUNT = "SELECT event, count() AS n FROM events WHERE key = 'bot' GROUP BY event ORDER BY event"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run Toolbus in front of a server with two names, with three recorded calls."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    launched = Launched(tmp_path_factory.mktemp("remote"))
    server = {"url": echo.url, "headers": {"X-Canary": HEADER}}
    admins = {role: {"role": role, "secret": each} for role, each in SECRETS.items()}
    configuration = {
        "servers": {"echo": server, "mirror": server},
        "keys": {"bot": {"secret": BOT, "tools": ["*"]}},
        "admins": admins,
    }
    with echo.running(), launched.running(configuration):
        client = launched.client(BOT)
        launched.until_listed(client, TOOL)
        for _ in range(3):
            assert client.call(TOOL, {"text": "x"}).text == "x"
        launched.eventual_rows(
            "SELECT 1 FROM events WHERE event = 'call.completed'", lambda rows: len(rows) == 3
        )
        launched.eventual_rows(
            "SELECT 1 FROM checkpoints WHERE customer = 'default'", lambda rows: len(rows) > 0
        )
        yield launched


@pytest.fixture
def remote(
    gateway: Launched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Return a function that runs a command in the context of a role, or in `local`."""
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(gateway.state_dir))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TOOLBUS_CONTEXT", "")
    monkeypatch.setattr(logging.root, "setLevel", lambda _level: None)
    monkeypatch.chdir(tmp_path)
    base = gateway.ready["endpoint"].removesuffix("/mcp")
    for role, secret in SECRETS.items():
        (tmp_path / "key").write_text(secret)
        assert runner.main(("context", "add", role, base, "--key-file", "key")) == 0
    capsys.readouterr()

    def toolbus(role: str, *words: str) -> tuple[int, str, str]:
        code = runner.main(("--context", role, *words))
        shown = capsys.readouterr()
        assert HEADER not in shown.out + shown.err
        return code, shown.out, shown.err

    return toolbus


def stable(state: dict[str, Any]) -> Any:
    """Return the parts of a status that do not change from one second to the next."""
    services = [
        {name: each[name] for name in ("service", "instance", "pid", "ready", "since")}
        for each in state["services"]
    ]
    servers = [
        {name: each[name] for name in ("name", "state", "tools", "breaker")}
        for each in state["servers"]
    ]
    return services, servers, state["missing"], state["endpoint"], state["alarms"]


def test_status_and_doctor_show_what_they_show_on_the_machine(remote: Run) -> None:
    code, shown, _ = remote("viewer", "status", "--json")
    local = json.loads(remote("local", "status", "--json")[1])
    assert (code, stable(json.loads(shown))) == (0, stable(local))
    assert [each["name"] for each in json.loads(shown)["servers"]] == ["echo", "mirror"]
    head = remote("local", "status")[1].splitlines()[:3]
    assert remote("viewer", "status")[1].splitlines()[:3] == head
    code, shown, _ = remote("viewer", "doctor", "--json")
    found = {each["what"]: each for each in json.loads(shown)}
    on_machine = json.loads(remote("local", "doctor", "--json")[1])
    assert code == 0, shown
    assert found.pop("gateway")["message"].endswith("as viewer")
    assert found == {each["what"]: each for each in on_machine if each["what"] in found}
    assert {"service policy", "event stream", "guards"} <= set(found)


def test_servers_are_returned_page_by_page(gateway: Launched) -> None:
    viewer = at(gateway, SECRETS["viewer"])
    first = viewer.request("GET", "/v1/status?limit=1").json
    second = viewer.request("GET", f"/v1/status?limit=1&after={first['next']}").json
    assert [each["name"] for each in (*first["servers"], *second["servers"])] == ["echo", "mirror"]
    assert second["next"] is None


def test_an_auditor_queries_events_as_on_the_machine(remote: Run) -> None:
    code, shown, _ = remote("auditor", "audit", "query", COUNT)
    assert (code, shown) == (0, remote("local", "audit", "query", COUNT)[1])
    assert "call.completed" in shown
    tail = ("audit", "tail", "-n", "3", "--event", "call.completed")
    assert remote("auditor", *tail)[1] == remote("local", *tail)[1]
    report = ("audit", "report", "--json")
    rows = json.loads(remote("auditor", *report)[1])["table"]
    assert rows == json.loads(remote("local", *report)[1])["table"]
    assert remote("auditor", "audit", "dead-letters", "list")[1] == "No dead letters.\n"
    code, _, error = remote("auditor", "audit", "query", "SELECT nothing FROM events")
    assert code == 1
    assert error.startswith("sql: ")
    assert remote("auditor", "audit", "query", "INSERT INTO events SELECT 1")[0] == 1


def test_an_auditor_exports_evidence_that_verifies(remote: Run, tmp_path: Path) -> None:
    assert remote("auditor", "audit", "export", "evidence.zip")[0] == 0
    key = remote("auditor", "audit", "key")[1].strip()
    assert key == remote("local", "audit", "key")[1].strip()
    code, shown, _ = remote("auditor", "audit", "verify", "evidence.zip", "--key", key)
    assert code == 0, shown
    lines = ("audit", "export", "events.jsonl", "--format", "jsonl", "--event", "call.*")
    assert remote("auditor", *lines)[0] == 0
    exported = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert [each["event"] for each in exported].count("call.completed") == 3
    code, _, error = remote("auditor", "audit", "export", "e.zip", "--reveal")
    assert (code, "--reveal" in error) == (1, True)
    for words in (("hold", "list"), ("forget", "ann"), ("backfill",), ("dead-letters", "retry")):
        code, _, error = remote("auditor", "audit", *words)
        assert (code, "does not work in the context" in error) == (1, True), words


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_only_auditors_and_admins_see_events(gateway: Launched, remote: Run, role: str) -> None:
    code, _, error = remote(role, "audit", "query", COUNT)
    assert (code, "auditor or admin" in error) == (1, True)
    refused = at(gateway, SECRETS[role]).request("POST", "/v1/audit/events", {})
    assert (refused.status, why(refused)) == (403, "forbidden")
