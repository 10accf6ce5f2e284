"""Rules over HTTP: denying, in shadow mode, requiring approval; changed at run time; replayed."""

import json
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from secrets import token_hex
from typing import Any

import pytest

from harness.clients.admin_client import at
from harness.gateway.cluster import Upstream
from harness.gateway.family_gateway import request
from harness.gateway.forked_commands import run_forked
from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking
from toolbus_common.admin_api.roles import ROLES, may

FULL, DIGEST, REDACTED = (
    "tbk_full_e2e-secret-of-rules",
    "tbk_digest_e2e-secret-of-rules",
    "tbk_redacted_e2e-secret-of-rules",
)
ADMIN = "tba_{}_e2e-secret-of-the-rules-1"
SAYS = (
    'forbid(principal, action == Action::"tools/call", resource == Tool::"echo__say") when {{'
    ' context.arguments has text && context.arguments.text like "{}" }};'
)
ETC = {"cedar": SAYS.format("/etc*"), "reason": "Read something else."}
HOME = {"cedar": SAYS.format("/home*"), "shadow": True}
DEAR = {
    "cedar": "forbid(principal, action, resource) when { context.cost > 1000000 };",
    "effect": "approve",
    "reason": "Over a dollar needs a person.",
}


@pytest.fixture(scope="module", params=["separate", "fused"])
def launched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Launched, Upstream]]:
    """Run a gateway with three rules and three keys: the content of two is recorded."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    options = ["--separate"] if request.param == "separate" else []
    gateway = Launched(tmp_path_factory.mktemp("rules"), *options)
    with echo.running(), gateway.running(document(echo)):
        gateway.until_listed(gateway.client(FULL), "echo__say")
        yield gateway, echo


def document(echo: Upstream, **rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "servers": {"echo": {"url": echo.url}},
        "keys": {
            "full": {"secret": FULL, "tools": ["*"], "content": "full", "environment": "prod"},
            "digest": {"secret": DIGEST, "tools": ["*"]},
            "redacted": {
                "secret": REDACTED,
                "tools": ["*"],
                "user": "ann",
                "content": "redacted",
                "result_content": "full",
            },
        },
        "users": {"ann": {}},
        "admins": {role: {"role": role, "secret": ADMIN.format(role)} for role in ROLES},
        "prices": {"echo__count": 2},
        "rules": {"etc": ETC, "home": HOME, "dear": DEAR, **rules},
    }


def checked(gateway: Launched) -> subprocess.CompletedProcess[str]:
    """Run `toolbus rules check`, which needs no installation."""
    words = ("rules", "check", str(gateway.config))
    return run_forked(words, gateway.directory, gateway.environment)


def rows(gateway: Launched, where: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gateway.eventual_rows(f"SELECT * FROM events WHERE {where}")
    return found


def test_a_rule_denies_a_call_and_is_named(launched: tuple[Launched, Upstream]) -> None:
    gateway, echo = launched
    before = len(echo.arrived())
    answer = gateway.client(FULL).call("echo__say", {"text": "/etc/passwd"})
    assert answer.status == 200
    assert answer.error["code"] == -31008
    assert answer.error["message"] == "The rule 'etc' denies this call: Read something else."
    assert answer.error["data"]["rule"] == "etc"
    assert len(echo.arrived()) == before
    assert gateway.client(FULL).call("echo__say", {"text": "/tmp/x"}).text == "/tmp/x"
    (row,) = rows(gateway, f"call_id = '{answer.error['data']['callId']}'")
    items = (row["event"], row["code"], row["rule"], row["environment"])
    assert items == ("call.denied", "rule_denied", "etc", "prod")


def test_a_shadow_rule_allows_a_call_and_is_recorded(launched: tuple[Launched, Upstream]) -> None:
    gateway, _ = launched
    assert gateway.client(FULL).call("echo__say", {"text": "/home/ada"}).text == "/home/ada"
    found = rows(gateway, "event = 'call.allowed' AND has(shadow, 'home')")
    assert {row["tool"] for row in found} == {"say"}


def test_a_call_that_a_rule_requires_approval_for_runs_once_approved(
    launched: tuple[Launched, Upstream],
) -> None:
    gateway, echo = launched
    before = len(echo.arrived())
    answer = gateway.client(FULL).call("echo__count", {"to": 1})
    assert answer.code == "approval_required"
    assert answer.error["data"]["rule"] == "dear"
    assert "Over a dollar needs a person." in answer.error["message"]
    assert len(echo.arrived()) == before
    decided = gateway.toolbus("approve", answer.error["data"]["approval"])
    assert decided.returncode == 0, decided.stderr
    assert "result" in gateway.client(FULL).call("echo__count", {"to": 1}).json
    assert gateway.client(FULL).call("echo__count", {"to": 1}).code == "approval_required"


def test_arguments_are_recorded_only_where_allowed(launched: tuple[Launched, Upstream]) -> None:
    gateway, _ = launched
    for secret in (FULL, DIGEST):
        run = token_hex(16)
        gateway.client(secret).call("echo__say", {"text": "mark-of-content"}, run)
        gateway.client(secret).call("echo__say", {"text": "/etc/mark-of-content"}, run)
        gateway.eventual_events(f"trace_id = '{run}'", "call.allowed", "call.denied")
    found = gateway.rows("SELECT event, key, detail FROM events WHERE key IN ('full', 'digest')")
    found = [row for row in found if "mark-of-content" in row["detail"]]
    assert {(row["event"], row["key"]) for row in found} == {
        ("call.allowed", "full"),
        ("call.denied", "full"),
    }
    assert {json.loads(row["detail"])["arguments"] for row in found} == {
        '{"text":"mark-of-content"}',
        '{"text":"/etc/mark-of-content"}',
    }
    # Readable for the operator, and encrypted in storage.
    assert gateway.rows("SELECT count() AS n FROM events WHERE detail LIKE '%mark-of%'") == [
        {"n": 0}
    ]


def test_recorded_content_is_redacted_encrypted_and_assigned_to_the_user(
    launched: tuple[Launched, Upstream],
) -> None:
    gateway, _ = launched
    run = token_hex(16)
    gateway.client(REDACTED).call("echo__say", {"text": "mail ann@example.org"}, run)
    events = gateway.eventual_events(
        f"trace_id = '{run}' AND user = person('ann')", "call.allowed", "call.completed"
    )
    allowed, completed = (json.loads(row["detail"]) for row in events.values())
    if allowed["event"] != "call.allowed":
        allowed, completed = completed, allowed
    assert (allowed["user"], completed["user"]) == ("ann", "ann")
    assert json.loads(allowed["arguments"]) == {"text": "mail [redacted]"}
    assert "mail ann@example.org" in completed["result"]
    assert sha256(completed["result"].encode()).hexdigest() == completed["result_digest"]
    stored = "countIf(position(detail, '\"ann\"') > 0 OR position(detail, 'example.org') > 0)"
    assert gateway.rows(f"SELECT {stored} AS n FROM events WHERE trace_id = '{run}'") == [{"n": 0}]


def test_a_proposed_rule_is_replayed_against_recorded_calls(
    launched: tuple[Launched, Upstream],
) -> None:
    gateway, _ = launched
    run = token_hex(16)
    for secret in (FULL, DIGEST):
        for text in ("/srv/a", "/srv/b", "/home/a"):
            assert gateway.client(secret).call("echo__say", {"text": text}, run).text == text
        assert (
            gateway.client(secret).call("echo__say", {"text": "/etc/a"}, run).code == "rule_denied"
        )
    decided = "SELECT 1 FROM events WHERE event IN ('call.allowed', 'call.denied')"
    gateway.eventual_rows(f"{decided} AND trace_id = '{run}'", lambda rows: len(rows) == 8)
    proposed = gateway.directory / "srv.cedar"
    proposed.write_text(SAYS.format("/srv*"))

    message = gateway.toolbus("rules", "replay", str(proposed), "--since", "1h", "--json")
    assert message.returncode == 0, message
    body = json.loads(message.stdout)
    assert body["refused"] == 2
    assert body["by_key"]["full"]["refused"] == 2
    # The fourth call was denied before already.
    assert set(body["by_key"]["digest"]) == {"unknown", "same"}
    assert {each["rule"] for each in body["examples"]["refused"]} == {"srv"}
    assert all(each["call_id"] for each in body["examples"]["refused"])
    alone = gateway.toolbus("rules", "replay", "--rule", "home", "--json")
    assert json.loads(alone.stdout)["by_key"]["full"]["refused"] >= 1


def test_proposed_rules_are_replayed_over_the_api_and_change_nothing(
    launched: tuple[Launched, Upstream],
) -> None:
    gateway, _ = launched
    run = token_hex(16)
    for secret in (FULL, DIGEST):
        for text in ("/opt/a", "/etc/a"):
            gateway.client(secret).call("echo__say", {"text": text}, run)
    decided = "SELECT 1 FROM events WHERE event IN ('call.allowed', 'call.denied')"
    gateway.eventual_rows(f"{decided} AND trace_id = '{run}'", lambda rows: len(rows) == 4)
    auditor = at(gateway, ADMIN.format("auditor"))
    before = auditor.request("GET", "/v1/configuration").json["revision"]

    proposed = {"opt": {"cedar": SAYS.format("/opt*"), "shadow": True}, "etc": None}
    answer = auditor.request("POST", "/v1/audit/rule-replays", {"rules": proposed})
    assert answer.status == 200, answer
    body = answer.json
    assert (body["by_key"]["full"]["refused"], body["by_key"]["full"]["allowed"]) >= (1, 1)
    assert body["missing"]["arguments"] == body["unknown"] >= 1
    assert body["complete"]
    refused, allowed = body["examples"]["refused"][0], body["examples"]["allowed"][0]
    assert (refused["key"], refused["rule"], refused["recorded"]) == ("full", "opt", "allowed")
    assert (allowed["rule"], allowed["recorded"]) == ("etc", "denied")
    (found,) = gateway.rows(
        f"SELECT key FROM events WHERE call_id = '{refused['call_id']}' LIMIT 1"
    )
    assert found == {"key": "full"}

    newest = {"rules": proposed, "calls": 1}
    some = auditor.request("POST", "/v1/audit/rule-replays", newest).json
    assert (some["calls"], some["complete"]) == (1, False)
    assert auditor.request("GET", "/v1/configuration").json["revision"] == before


def test_a_replay_names_every_mistake_with_its_line(launched: tuple[Launched, Upstream]) -> None:
    auditor = at(launched[0], ADMIN.format("auditor"))
    wrong = "forbid(principal, action, resource)\nwhen { foo bar };\npermit(principal);"
    proposed = {
        "new": {"cedar": wrong},
        "none": None,
        "team": {"cedar": 'forbid(principal in Team::"x", action, resource);'},
    }
    answer = auditor.request("POST", "/v1/audit/rule-replays", {"rules": proposed})
    assert answer.status == 422
    found = [(each["location"], each["reason"].partition(":")[0]) for each in answer.json["errors"]]
    assert found == [
        ("rules.new.cedar", "line 2"), ("rules.new.cedar", "line 3"),
        ("rules.none", "is not configured; omit it"),
    ]  # fmt: skip
    valid = auditor.request("POST", "/v1/audit/rule-replays", {"rules": {"team": proposed["team"]}})
    (warning,) = valid.json["warnings"]
    assert 'Team::"x", which is not configured' in warning["reason"]


@pytest.mark.parametrize("role", ROLES)
def test_who_may_not_read_recorded_calls_may_not_replay_them(
    launched: tuple[Launched, Upstream], role: str
) -> None:
    admin = at(launched[0], ADMIN.format(role))
    answer = admin.request("POST", "/v1/audit/rule-replays", {"rules": {"etc": None}})
    assert answer.status == (200 if may(role, "audit") else 403)


def test_a_call_that_waits_for_approval_is_replayed_too(
    launched: tuple[Launched, Upstream],
) -> None:
    gateway, _ = launched
    params = {"name": "echo__count", "arguments": {"id": "paged"}}
    answer = request(gateway.client(FULL), "tools/call", params, elicitation={"url": {}})
    assert answer.json["result"]["resultType"] == "input_required"
    gateway.eventual_rows(
        "SELECT detail FROM events WHERE event = 'approval.requested'",
        lambda rows: any("paged" in row["detail"] for row in rows),
    )
    proposed = gateway.directory / "dear.cedar"
    proposed.write_text(
        'forbid(principal, action, resource == Tool::"echo__count") when {'
        ' context.arguments has id && context.arguments.id == "paged" };'
    )
    message = gateway.toolbus("rules", "replay", str(proposed), "--json")
    assert json.loads(message.stdout)["by_key"]["full"]["refused"] == 1


def test_a_rule_takes_effect_at_run_time_and_an_invalid_one_does_not(
    launched: tuple[Launched, Upstream],
) -> None:
    gateway, echo = launched
    client = gateway.client(FULL)
    assert client.call("echo__say", {"text": "later"}).text == "later"
    gateway.configure(
        document(echo, later={"cedar": SAYS.format("later").replace("forbid(", "forbid")})
    )
    message = checked(gateway)
    assert message.returncode == 1
    assert "rules.later.cedar: is not Cedar" in message.stderr
    assert message.stderr.startswith(f"{gateway.config}:")
    gateway.configure(document(echo, later={"cedar": SAYS.format("later")}))
    assert checked(gateway).returncode == 0
    until_blocking(lambda: client.call("echo__say", {"text": "later"}).code == "rule_denied")
    listed = json.loads(gateway.toolbus("rules", "list", "--json").stdout)
    assert list(listed) == ["etc", "home", "dear", "later"]
    gateway.configure(document(echo))
    until_blocking(lambda: client.call("echo__say", {"text": "later"}).code == "")
