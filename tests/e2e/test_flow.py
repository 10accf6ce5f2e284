"""Information flow with real servers: a private reader, a fetcher of pages and a sender of mail."""

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client as FastClient
from mcp import MCPError

from harness.clients.admin_client import at
from harness.clients.form_browser import Browser
from harness.clients.mcp_client import Answer
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.packages import npm

FILES = "@modelcontextprotocol/server-filesystem@2026.8.31"
ACTIONS = ("refuse", "ask", "flag")
NAMES = (*ACTIONS, "window", "program", "listed", "remote", "boss")
ADMINS = {role: f"tba_{role}_e2e-secret-of-flows" for role in ("operator", "viewer")}
KEYS = {name: f"tbk_{name}_e2e-secret-of-flows" for name in NAMES}
READ, FETCH, SEND = "files__read_text_file", "web__say", "mail__say"


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[tuple[Launched, Path]]:
    """Run a gateway with three servers; the flow of each key has another action."""
    assert pytestconfig.cache is not None
    files = tmp_path_factory.mktemp("files")
    (files / "note.txt").write_text("the plan")
    program = npm.installed(FILES, "dist/index.js", pytestconfig.cache.mkdir("node"))
    command = [str(npm.NODE), str(program), str(files)]
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    keys = {
        name: {"secret": KEYS[name], "tools": ["*"], "flow": name if name in ACTIONS else "refuse"}
        for name in NAMES
    }
    keys["boss"]["rights"] = ["approve"]
    document = {
        "servers": {
            "files": {"command": command, "cwd": str(files), "idle": 0,
                      "reads": "private", "writes": "inside"},
            "web": {"url": echo.url, "reads": "untrusted", "writes": "nothing"},
            "mail": {"url": echo.url, "tools": {"say": {"reads": [], "writes": "outside"}}},
        },
        "keys": keys,
        "admins": {role: {"role": role, "secret": key} for role, key in ADMINS.items()},
    }  # fmt: skip
    launched = Launched(tmp_path_factory.mktemp("flow"))
    with echo.running(), launched.running(document):
        launched.until_listed(launched.client(KEYS["refuse"]), READ, FETCH, SEND)
        yield launched, files / "note.txt"


def read_both(launched: Launched, note: Path, name: str) -> None:
    client = launched.client(KEYS[name])
    assert client.call(READ, {"path": str(note)}).text == "the plan"
    assert client.call(FETCH, {"text": "page"}).text == "page"


def sent(launched: Launched, name: str) -> Answer:
    return launched.client(KEYS[name]).call(SEND, {"text": name})


async def test_a_session_that_read_both_cannot_send_and_a_new_session_can(
    running: tuple[Launched, Path],
) -> None:
    launched, note = running
    endpoint = launched.ready["endpoint"]
    async with FastClient(endpoint, auth=KEYS["refuse"], mode="legacy") as first:
        await first.call_tool(READ, {"path": str(note)})
        await first.call_tool(SEND, {"text": "private data alone"})
        await first.call_tool(FETCH, {"text": "page"})
        with pytest.raises(MCPError, match="'files__read_text_file' read private data, then"):
            await first.call_tool(SEND, {"text": "both"})
        async with FastClient(endpoint, auth=KEYS["refuse"], mode="legacy") as second:
            await second.call_tool(SEND, {"text": "another session"})


def test_without_a_session_the_calls_of_a_key_count_together(
    running: tuple[Launched, Path],
) -> None:
    launched, note = running
    assert sent(launched, "window").text == "window"
    read_both(launched, note, "window")
    assert sent(launched, "window").code == "flow_refused"


def test_a_flagged_call_is_made_and_recorded(running: tuple[Launched, Path]) -> None:
    launched, note = running
    read_both(launched, note, "flag")
    assert sent(launched, "flag").text == "flag"
    (row,) = launched.eventual_rows(
        "SELECT * FROM events WHERE event = 'call.allowed' AND key = 'flag' AND server = 'mail'"
    )
    record = json.loads(row["flow"])
    assert (record["verdict"], record["chain"]) == ("flagged", [READ, FETCH])


def test_the_approval_page_shows_the_calls_that_led_to_the_request(
    running: tuple[Launched, Path],
) -> None:
    launched, note = running
    read_both(launched, note, "ask")
    data = sent(launched, "ask").error["data"]
    assert data["flow"]["chain"] == [READ, FETCH, SEND]
    browser = Browser(launched.ready["endpoint"].removesuffix("/mcp"))
    path = f"/approvals/{data['approval']}"
    page = browser.post(path, key=KEYS["boss"], action="show")
    text = html.unescape(page.text)
    steps = text[text.index("Calls that led here") :]
    first, second = steps.index(f"{READ} read private"), steps.index(f"{FETCH} read untrusted")
    assert first < second < steps.index(f"{SEND} would send the arguments below outside")
    assert "This run has read private data and untrusted content" in text
    browser.post(path, ticket=page.ticket, action="approve", note="")
    assert sent(launched, "ask").text == "ask"
    (row,) = launched.eventual_rows(
        "SELECT * FROM events WHERE event = 'call.denied' AND key = 'ask'"
    )
    record = json.loads(row["flow"])
    assert (row["code"], record["verdict"]) == ("approval_required", "asked")
    assert record["chain"] == [READ, FETCH]


def test_a_program_that_never_mixes_values_may_send_and_one_that_does_may_not(
    running: tuple[Launched, Path],
) -> None:
    launched, note = running

    def result(text: str) -> Any:
        code = (
            f'note = files.read_text_file(path="{note}")\npage = web.say(text="page")\n'
            f"mail.say(text={text})\nresult = 1"
        )
        arguments = {"code": code, "language": "starlark"}
        return launched.client(KEYS["program"]).call("executeToolCode", arguments)

    mixing = result('str(note) + " of " + page')
    assert "flow_refused" in mixing.text
    launched.toolbus("flow", "reset", only_run(launched, "program"), "--reason", "a new program")
    assert result("page").text == "1"
    # All that the program has read is read by its run.
    assert sent(launched, "program").code == "flow_refused"


def only_run(launched: Launched, name: str) -> str:
    runs = json.loads(launched.toolbus("flow", "runs", "--json").stdout)["runs"]
    (run,) = [each["run"] for each in runs if each["key"] == name]
    return str(run)


def test_an_operator_lists_and_resets_runs(running: tuple[Launched, Path]) -> None:
    launched, note = running
    read_both(launched, note, "listed")
    run = only_run(launched, "listed")
    (line,) = [
        each for each in launched.toolbus("flow", "runs").stdout.splitlines() if run[:12] in each
    ]
    assert READ in line
    assert FETCH in line
    assert sent(launched, "listed").code == "flow_refused"
    assert launched.toolbus("flow", "reset", run, "--reason", "checked").returncode == 0
    assert sent(launched, "listed").text == "listed"
    for unknown in (run, "*"):
        failed = launched.toolbus("flow", "reset", unknown, "--reason", "again")
        assert failed.returncode != 0
        assert "'toolbus flow runs' lists the runs" in " ".join(failed.stderr.split())


def test_an_administrator_lists_and_resets_runs_over_http(running: tuple[Launched, Path]) -> None:
    launched, note = running
    read_both(launched, note, "remote")
    operator, viewer = (at(launched, ADMINS[role]) for role in ("operator", "viewer"))
    found = viewer.request("GET", "/v1/flow/runs").json["runs"]
    (run,) = [each["run"] for each in found if each["key"] == "remote"]
    reset, reason = f"/v1/flow/runs/{run}/reset", {"reason": "checked"}
    assert viewer.request("POST", reset, reason).status == 403
    assert operator.request("POST", reset, {}).status == 400
    assert sent(launched, "remote").code == "flow_refused"
    assert operator.request("POST", reset, reason).json["private"] == ""
    assert sent(launched, "remote").text == "remote"
    assert operator.request("POST", reset, reason).status == 404
    (row,) = launched.eventual_rows(
        "SELECT * FROM events WHERE event = 'flow.reset' AND key = 'remote'"
    )
    detail = json.loads(row["detail"])
    recorded = (detail["run"], detail["by"], row["reason"])
    assert recorded == (run, "admin:operator", "checked")


def test_a_guess_is_shown_until_it_is_confirmed(running: tuple[Launched, Path]) -> None:
    launched, _ = running
    guess = {"tool": "mail__count", "reads": ["private", "untrusted"], "writes": "outside"}
    labels = json.loads(launched.toolbus("flow", "labels", "--json").stdout)
    assert {**guess, "guessed": ["reads", "writes"]} in labels
    shown = "private, untrusted?"
    for words in (["tools"], ["pins", "list", "mail__count", "--all"], ["flow", "labels"]):
        (line,) = [
            each for each in launched.toolbus(*words).stdout.splitlines() if "mail__count" in each
        ]
        assert shown in line, words
        assert "outside?" in line, words
    assert "these tools are guessed" in launched.toolbus("flow", "labels").stdout
    done = launched.toolbus("flow", "confirm", "mail", "count", "drip")
    assert done.returncode == 0, done.stderr
    assert "writes: outside" in done.stdout
    labels = json.loads(launched.toolbus("flow", "labels", "--json").stdout)
    assert {**guess, "guessed": []} in labels
    changed = launched.eventual_rows(
        "SELECT * FROM events WHERE event = 'config.changed' AND detail LIKE '%untrusted%'"
        " AND detail LIKE '%drip%'"
    )
    assert changed
    assert launched.toolbus("flow", "confirm", "mail", "nothing").returncode != 0
