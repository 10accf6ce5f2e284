"""Guards of a running gateway: their checks are recorded, covered, replayed and listed."""

import json
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest

from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched

GUARDED, FREE = "tbk_guarded_e2e-secret-of-guards", "tbk_free_e2e-secret-of-guards"
TOKEN = "ghp_" + "x7Gk2mQp9RtVw3ZbN5cYs8HdLf4JaE6uT1oi"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run a gateway whose guard applies to one of two keys; the content of the other is kept."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    gateway = Launched(tmp_path_factory.mktemp("guards"))
    document = {
        "servers": {"echo": {"url": echo.url}},
        "guards": {
            "secrets": {"kind": "secrets", "on": ["arguments", "results"], "action": "redact"},
            "idle": {"kind": "secrets", "on": ["results"]},
            "late": {"kind": "http", "url": "http://127.0.0.1:9/", "on": ["arguments"]},
        },
        "customers": {"acme": {"guards": ["secrets"]}},
        "teams": {"ops": {"customer": "acme"}},
        "keys": {
            "guarded": {"secret": GUARDED, "tools": ["*"], "team": "ops"},
            "free": {"secret": FREE, "tools": ["*"], "content": "full", "result_content": "full"},
        },
    }
    with echo.running(), gateway.running(document):
        gateway.until_listed(gateway.client(GUARDED), "echo__say")
        yield gateway


def called(gateway: Launched, secret: str, text: str) -> None:
    """Call the tool, and wait until both of its events are stored."""
    run = token_hex(16)
    gateway.client(secret).call("echo__say", {"text": text}, run)
    gateway.eventual_events(f"trace_id = '{run}'", "call.allowed", "call.completed")


def body_of(gateway: Launched, *words: str, code: int = 0) -> Any:
    """Run a command and return its JSON."""
    done = gateway.toolbus("guards", *words, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_every_call_of_a_guarded_key_is_covered_and_a_tool_without_a_guard_is_named(
    gateway: Launched,
) -> None:
    called(gateway, GUARDED, f"take {TOKEN}")
    called(gateway, FREE, "hello")
    found = body_of(gateway, "coverage", "--since", "1h")
    shares = {(each["key"], each["guard"], each["phase"]): each for each in found["shares"]}
    assert shares.keys() == {
        ("guarded", "secrets", "arguments"), ("guarded", "secrets", "results"),
    }  # fmt: skip
    for each in shares.values():
        assert (each["percent"], each["missing"], each["failed"]) == (100, 0, 0)
        assert each["attached_by"] == ["customer:acme"]
    assert [(each["key"], each["tool"]) for each in found["without_guards"]] == [
        ("free", "echo__say")
    ]
    rows = gateway.rows("SELECT verdict FROM guard_checks WHERE phase = 'arguments'")
    assert {"verdict": "redacted"} in rows


def test_a_guard_is_replayed_on_recorded_content_without_showing_it(gateway: Launched) -> None:
    called(gateway, FREE, f"take {TOKEN}")
    found = body_of(gateway, "replay", "secrets", "--key", "free", "--since", "1h")
    assert found["verdicts"]["would_redact"] >= 2  # the arguments and the result
    assert {each["key"] for each in found["examples"]} == {"free"}
    assert found["rules"].keys() == {"github-pat"}
    assert TOKEN not in json.dumps(found)


def test_guards_are_listed_with_what_attaches_them_and_their_verdicts(gateway: Launched) -> None:
    called(gateway, GUARDED, "hello")
    rows = {each["guard"]: each for each in body_of(gateway, "list")}
    assert rows["secrets"]["attached_to"] == ["customer:acme"]
    assert {each["verdict"] for each in rows["secrets"]["recent"]} >= {"passed"}
    assert rows["idle"]["attached_to"] == []
    shown = gateway.toolbus("guards", "list")
    assert "'idle' is attached to nothing, so it checks no call." in shown.stdout
    secrets = body_of(gateway, "show", "secrets")
    assert secrets["version"]
    assert secrets["rules"] == body_of(gateway, "list", "--rules")["secrets"]
    assert "github-pat" in gateway.toolbus("guards", "show", "secrets").stdout
    assert "guards.idle: is attached to nothing" in gateway.logs()


def test_a_configured_guard_checks_a_content_and_one_of_a_service_asks_through_the_gateway(
    gateway: Launched,
) -> None:
    assert body_of(gateway, "check", "secrets", TOKEN, code=1)["findings"] == ["github-pat"]
    assert body_of(gateway, "check", "secrets", "hello")["verdict"] == "passed"
    failed = body_of(gateway, "check", "late", "hello", code=1)
    assert failed["verdict"] == "failed"
    assert "running Toolbus" not in failed["error"]
