"""The catalogue of servers: an entry becomes a server whose tools are called."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.clients.admin_client import at, why
from harness.engines.engine import installed
from harness.gateway.launched_gateway import Launched
from toolbus_cli import runner

BOT = "tbk_bot_e2e-secret-of-the-catalogue"
ADMIN = "tba_admin_e2e-secret-of-the-catalogue"
VIEWER = "tba_viewer_e2e-secret-of-the-catalogue"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run Toolbus without servers, with programs of the test environment on its path."""
    programs = Path(installed("mcp-server-time")).parent
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    launched = Launched(tmp_path_factory.mktemp("catalogue"), PATH=path)
    configuration = {
        "keys": {"bot": {"secret": BOT, "tools": ["*"]}},
        "admins": {
            "ann": {"role": "admin", "secret": ADMIN},
            "bob": {"role": "viewer", "secret": VIEWER},
        },
    }
    with launched.running(configuration):
        yield launched


@pytest.fixture
def toolbus(
    gateway: Launched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Return a function that runs a command beside the gateway, or in the context `remote`."""
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(gateway.state_dir))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TOOLBUS_CONTEXT", "")
    monkeypatch.setattr(logging.root, "setLevel", lambda _level: None)
    (tmp_path / "key").write_text(ADMIN)
    base = gateway.ready["endpoint"].removesuffix("/mcp")
    added = ("context", "add", "remote", base, "--key-file", str(tmp_path / "key"))
    assert runner.main(added) == 0
    assert runner.main(("context", "use", "local")) == 0
    capsys.readouterr()

    def run(*words: str) -> tuple[int, str, str]:
        code = runner.main(words)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_a_server_from_the_catalogue_is_started_and_called(gateway: Launched, toolbus: Run) -> None:
    code, shown, steps = toolbus("catalogue", "add", "time", "--installed", "--name", "zones")
    assert (code, shown) == (0, "Added the server 'zones'.\n"), steps
    assert "--tools 'zones__get_current_time'" in steps
    client = gateway.client(BOT)
    gateway.until_listed(client, "zones__get_current_time")
    answer = client.call("zones__get_current_time", {"timezone": "Europe/Oslo"})
    assert json.loads(answer.text)["timezone"] == "Europe/Oslo"
    stored = at(gateway, VIEWER).request("GET", "/v1/servers/zones").json["value"]
    assert stored["command"][0] == "mcp-server-time"
    assert (stored["reads"], stored["writes"], stored["network"]) == (["public"], "nothing", "none")
    code, _, error = toolbus("catalogue", "add", "time", "--installed", "--name", "zones")
    assert code == 1
    assert "'zones' is already configured" in error


def test_a_server_is_added_in_a_context_with_its_rights_only(
    gateway: Launched, toolbus: Run
) -> None:
    words = ("--context", "remote", "catalogue", "add")
    code, shown, error = toolbus(*words, "docker-docs")
    assert (code, shown) == (0, "Added the server 'docker-docs'.\n"), error
    stored = at(gateway, VIEWER).request("GET", "/v1/servers/docker-docs").json["value"]
    assert stored["url"] == "https://mcp-docs.docker.com/mcp"
    code, _, error = toolbus(*words, "docker-docs")
    assert code == 1
    assert "already configured" in error
    code, _, error = toolbus(*words, "time", "--installed")  # a program: not over the API
    assert code == 1
    assert "command" in error


def test_the_api_lists_entries_and_shows_what_each_configures(gateway: Launched) -> None:
    viewer = at(gateway, VIEWER)
    first = viewer.request("GET", "/v1/catalogue?limit=2").json
    second = viewer.request("GET", f"/v1/catalogue?limit=2&after={first['next']}").json
    names = [each["name"] for each in (*first["items"], *second["items"])]
    assert names == sorted(set(names))
    assert len(names) == 4
    found = viewer.request("GET", "/v1/catalogue?search=hub%20issues").json["items"]
    assert "github" in [each["name"] for each in found]
    entry = viewer.request("GET", "/v1/catalogue/filesystem").json
    assert entry["missing"] == ["directory"]
    assert entry["server"]["command"][-1] == "{directory}"
    assert entry["program"]
    missing = viewer.request("GET", "/v1/catalogue/nobody")
    assert (missing.status, why(missing)) == (404, "unknown_entry")
    assert viewer.as_("").request("GET", "/v1/catalogue").status == 401


def test_the_gateway_is_added_to_a_clients_file_once_its_key_works(
    toolbus: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".cursor" / "mcp.json"
    path.parent.mkdir()
    path.write_text('{"mcpServers": {"git": {"command": "uvx"}}}')
    code, _, error = toolbus("client", "install", "cursor", "--key", "tbk_bot_another")
    assert (code, "git" in path.read_text(), "toolbus" in path.read_text()) == (1, True, False)
    assert "tbk_bot_another" not in error
    monkeypatch.setenv("TOOLBUS_KEY", BOT)
    code, shown, error = toolbus("client", "install", "cursor")
    assert code == 0, error
    assert "Backup: " in shown
    assert BOT not in shown
    entry = json.loads(path.read_text())["mcpServers"]["toolbus"]
    assert entry["headers"] == {"Authorization": f"Bearer {BOT}"}
    code, shown, _ = toolbus("client", "install", "cursor")
    assert (code, shown) == (0, f"{path} already has this entry; nothing was changed.\n")
    code, _, error = toolbus("client", "install", "cursor", "--project", str(tmp_path / "absent"))
    assert (code, "not a directory" in error) == (1, True)


def test_a_projects_file_refers_to_the_key(toolbus: Run, tmp_path: Path) -> None:
    words = ("client", "install", "claude", "--project", str(tmp_path), "--name", "tb")
    code, shown, error = toolbus(*words, "--key", BOT, "--server", "docs", "--no-check")
    assert code == 0, error
    assert "set TOOLBUS_KEY" in shown
    entry = json.loads((tmp_path / ".mcp.json").read_text())["mcpServers"]["tb"]
    assert entry["url"].endswith("/mcp/docs")
    assert entry["headers"] == {"Authorization": "Bearer ${TOOLBUS_KEY}"}
