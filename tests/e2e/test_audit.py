"""Every call has its events soon, whatever its outcome; arguments and secrets are in none."""

import time
from secrets import token_hex
from typing import Any

from harness.gateway.everything_gateway import READER_KEY, ROOT_KEY, Gateway


def rows_of(gateway: Gateway, call_id: str, *events: str) -> dict[str, dict[str, Any]]:
    return gateway.cluster.eventual_events(f"call_id = '{call_id}'", *events)


def test_a_call_is_queryable_as_intent_and_outcome(gateway: Gateway) -> None:
    began, run = time.monotonic(), token_hex(16)
    assert gateway.client().call("echo__drip", {"steps": 1}, run).status == 200
    rows = gateway.cluster.eventual_events(f"trace_id = '{run}'", "call.allowed", "call.completed")
    print(f"\nqueryable {time.monotonic() - began:.2f} s after the call")
    # Progress may extend the call: the deadline set here is shorter than the server's timeout.
    assert set(rows) - {"call.extended"} == {"call.allowed", "call.completed"}
    intent, outcome = rows["call.allowed"], rows["call.completed"]
    assert intent["key"] == outcome["key"] == "root"
    assert intent["call_id"] == outcome["call_id"] != ""
    assert intent["at"] <= outcome["at"]


def test_a_denied_call_has_its_reason_under_the_returned_call_id(
    gateway: Gateway,
) -> None:
    call_id = gateway.client(READER_KEY).call("git__git_push").error["data"]["callId"]
    rows = rows_of(gateway, call_id, "call.denied")
    assert set(rows) == {"call.denied"}
    assert rows["call.denied"]["code"] == "unknown_tool"
    assert rows["call.denied"]["key"] == "reader"


def test_a_failed_call_records_whether_it_was_dispatched(gateway: Gateway) -> None:
    call_id = gateway.client().call("short__wait", {"seconds": 20}).error["data"]["callId"]
    rows = rows_of(gateway, call_id, "call.allowed", "call.failed")
    assert set(rows) == {"call.allowed", "call.failed"}
    assert rows["call.failed"]["code"] == "upstream_timeout"
    assert rows["call.failed"]["sent"]


def test_secrets_and_arguments_are_neither_stored_nor_logged(gateway: Gateway) -> None:
    canary, run = "canary-argument-5f2e", token_hex(16)
    assert gateway.client().call("echo__count", {"id": canary}, run).text == canary
    gateway.cluster.eventual_events(f"trace_id = '{run}'", "call.allowed", "call.completed")
    for word in (canary, ROOT_KEY):
        found = gateway.cluster.rows(
            f"SELECT count() AS n FROM events WHERE position(detail, '{word}') > 0"
        )
        assert int(found[0]["n"]) == 0
        assert word not in gateway.cluster.logs()
        spool = (gateway.cluster.state_dir / "spool").glob("*")
        assert [file.name for file in spool if word.encode() in file.read_bytes()] == []
