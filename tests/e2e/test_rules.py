"""Rules through HTTP: refused, watched, asked of a person; changed while it runs; replayed."""

import json
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from secrets import token_hex
from typing import Any

import pytest

from harness.engines.engine import installed
from harness.gateway.cluster import Upstream
from harness.gateway.family_gateway import request
from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking

FULL, DIGEST, REDACTED = (
    "tbk_full_e2e-secret-of-rules",
    "tbk_digest_e2e-secret-of-rules",
    "tbk_redacted_e2e-secret-of-rules",
)
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
    """A gateway with three rules and three keys: two whose content is recorded."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    options = ["--separate"] if request.param == "separate" else []
    made = Launched(tmp_path_factory.mktemp("rules"), *options)
    try:
        echo.start()
        made.configure(document(echo))
        made.start()
        made.until_listed(made.client(FULL), "echo__say")
        yield made, echo
    finally:
        made.stop()
        echo.kill()


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
        "prices": {"echo__count": 2},
        "rules": {"etc": ETC, "home": HOME, "dear": DEAR, **rules},
    }


def checked(made: Launched) -> subprocess.CompletedProcess[str]:
    """`toolbus rules check`, which needs no installation."""
    command = [installed("toolbus"), "rules", "check", str(made.config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


def rows(made: Launched, where: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made.eventual_rows(f"SELECT * FROM events WHERE {where}")
    return found


def test_a_rule_refuses_a_call_and_is_named(launched: tuple[Launched, Upstream]) -> None:
    made, echo = launched
    before = len(echo.arrived())
    answer = made.client(FULL).call("echo__say", {"text": "/etc/passwd"})
    assert answer.status == 200
    assert answer.error["code"] == -31008
    assert answer.error["message"] == "The rule 'etc' denies this call: Read something else."
    assert answer.error["data"]["rule"] == "etc"
    assert len(echo.arrived()) == before
    assert made.client(FULL).call("echo__say", {"text": "/tmp/x"}).text == "/tmp/x"
    (row,) = rows(made, f"call_id = '{answer.error['data']['callId']}'")
    items = (row["event"], row["code"], row["rule"], row["environment"])
    assert items == ("call.denied", "rule_denied", "etc", "prod")


def test_a_shadow_lets_a_call_through_and_is_recorded(launched: tuple[Launched, Upstream]) -> None:
    made, _ = launched
    assert made.client(FULL).call("echo__say", {"text": "/home/ada"}).text == "/home/ada"
    found = rows(made, "event = 'call.allowed' AND has(shadow, 'home')")
    assert {row["tool"] for row in found} == {"say"}


def test_a_call_that_a_rule_wants_a_person_for_goes_through_once_approved(
    launched: tuple[Launched, Upstream],
) -> None:
    made, echo = launched
    before = len(echo.arrived())
    answer = made.client(FULL).call("echo__count", {"to": 1})
    assert answer.code == "approval_required"
    assert answer.error["data"]["rule"] == "dear"
    assert "Over a dollar needs a person." in answer.error["message"]
    assert len(echo.arrived()) == before
    decided = made.toolbus("approve", answer.error["data"]["approval"])
    assert decided.returncode == 0, decided.stderr
    assert "result" in made.client(FULL).call("echo__count", {"to": 1}).json
    assert made.client(FULL).call("echo__count", {"to": 1}).code == "approval_required"


def test_arguments_are_recorded_only_where_they_may_be(
    launched: tuple[Launched, Upstream],
) -> None:
    made, _ = launched
    for secret in (FULL, DIGEST):
        run = token_hex(16)
        made.client(secret).call("echo__say", {"text": "mark-of-content"}, run)
        made.client(secret).call("echo__say", {"text": "/etc/mark-of-content"}, run)
        made.eventual_events(f"trace_id = '{run}'", "call.allowed", "call.denied")
    found = made.rows("SELECT event, key, detail FROM events WHERE key IN ('full', 'digest')")
    found = [row for row in found if "mark-of-content" in row["detail"]]
    assert {(row["event"], row["key"]) for row in found} == {
        ("call.allowed", "full"),
        ("call.denied", "full"),
    }
    assert {json.loads(row["detail"])["arguments"] for row in found} == {
        '{"text":"mark-of-content"}',
        '{"text":"/etc/mark-of-content"}',
    }
    # What is read in the plain is sealed where it is kept.
    assert made.rows("SELECT count() AS n FROM events WHERE detail LIKE '%mark-of%'") == [{"n": 0}]


def test_what_is_recorded_of_a_call_is_struck_sealed_and_told_as_the_users(
    launched: tuple[Launched, Upstream],
) -> None:
    made, _ = launched
    run = token_hex(16)
    made.client(REDACTED).call("echo__say", {"text": "mail ann@example.org"}, run)
    events = made.eventual_events(
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
    assert made.rows(f"SELECT {stored} AS n FROM events WHERE trace_id = '{run}'") == [{"n": 0}]


def test_a_proposed_rule_is_replayed_against_what_was_recorded(
    launched: tuple[Launched, Upstream],
) -> None:
    made, _ = launched
    run = token_hex(16)
    for secret in (FULL, DIGEST):
        for text in ("/srv/a", "/srv/b", "/home/a"):
            assert made.client(secret).call("echo__say", {"text": text}, run).text == text
        assert made.client(secret).call("echo__say", {"text": "/etc/a"}, run).code == "rule_denied"
    decided = "SELECT 1 FROM events WHERE event IN ('call.allowed', 'call.denied')"
    made.eventual_rows(f"{decided} AND trace_id = '{run}'", lambda rows: len(rows) == 8)
    proposed = made.directory / "srv.cedar"
    proposed.write_text(SAYS.format("/srv*"))

    message = made.toolbus("rules", "replay", str(proposed), "--since", "1h", "--json")
    assert message.returncode == 0, message
    body = json.loads(message.stdout)
    assert body["refused"] == 2
    assert body["by_key"]["full"]["refused"] == 2
    assert set(body["by_key"]["digest"]) == {"unknown", "same"}  # one was refused already
    assert {each["rule"] for each in body["examples"]["refused"]} == {"srv"}
    assert all(each["call_id"] for each in body["examples"]["refused"])
    alone = made.toolbus("rules", "replay", "--rule", "home", "--json")
    assert json.loads(alone.stdout)["by_key"]["full"]["refused"] >= 1


def test_a_call_that_waits_for_a_person_and_was_refused_nothing_is_replayed_too(
    launched: tuple[Launched, Upstream],
) -> None:
    made, _ = launched
    params = {"name": "echo__count", "arguments": {"id": "paged"}}
    answer = request(made.client(FULL), "tools/call", params, elicitation={"url": {}})
    assert answer.json["result"]["resultType"] == "input_required"
    made.eventual_rows(
        "SELECT detail FROM events WHERE event = 'approval.requested'",
        lambda rows: any("paged" in row["detail"] for row in rows),
    )
    proposed = made.directory / "dear.cedar"
    proposed.write_text(
        'forbid(principal, action, resource == Tool::"echo__count") when {'
        ' context.arguments has id && context.arguments.id == "paged" };'
    )
    message = made.toolbus("rules", "replay", str(proposed), "--json")
    assert json.loads(message.stdout)["by_key"]["full"]["refused"] == 1


def test_a_rule_takes_effect_while_it_runs_and_a_faulty_one_does_not(
    launched: tuple[Launched, Upstream],
) -> None:
    made, echo = launched
    client = made.client(FULL)
    assert client.call("echo__say", {"text": "later"}).text == "later"
    made.configure(
        document(echo, later={"cedar": SAYS.format("later").replace("forbid(", "forbid")})
    )
    message = checked(made)
    assert message.returncode == 1
    assert "rules.later.cedar: is not Cedar" in message.stderr
    assert message.stderr.startswith(f"{made.config}:")
    made.configure(document(echo, later={"cedar": SAYS.format("later")}))
    assert checked(made).returncode == 0
    until_blocking(lambda: client.call("echo__say", {"text": "later"}).code == "rule_denied")
    listed = json.loads(made.toolbus("rules", "list", "--json").stdout)
    assert list(listed) == ["etc", "home", "dear", "later"]
    made.configure(document(echo))
    until_blocking(lambda: client.call("echo__say", {"text": "later"}).code == "")
