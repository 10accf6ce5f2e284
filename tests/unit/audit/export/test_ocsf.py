"""Every event as an event of the public schema: its class, what it requires, nothing unknown."""

from typing import Any

import pytest

from harness.audit.ocsf import SCHEMA, faults
from harness.audit.sample_events import bare, event
from toolbus_audit.export.ocsf import VERSION, encode_ocsf, mapped_events, ocsf_event_of
from toolbus_common.contracts import EVENTS


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_valid_with_any_content(name: str) -> None:
    assert faults(ocsf_event_of(event(name))) == []
    assert faults(ocsf_event_of(bare(EVENTS[name]))) == []


def test_every_event_has_a_mapping_of_its_own() -> None:
    assert mapped_events() == set(EVENTS)


def test_the_resource_of_a_model_request_is_the_model() -> None:
    used = event("model.used", server="claude", tool="haiku", method="models/chat", input_tokens=7)
    shown = ocsf_event_of(used)
    assert shown["resources"] == [{"name": "claude/haiku", "type": "model"}]
    assert shown["api"]["operation"] == "haiku"
    assert shown["api"]["group"] == {"name": "models/chat"}
    assert shown["unmapped"]["input_tokens"] == 7


def test_the_version_is_that_of_the_checked_schema() -> None:
    assert SCHEMA["version"] == VERSION


@pytest.mark.parametrize(
    ("name", "given", "type_uid", "status"),
    [
        ("call.completed", {"is_error": False, "method": "tools/call"}, 600399, "Success"),
        ("call.completed", {"is_error": True, "method": "tools/call"}, 600399, "Failure"),
        ("call.allowed", {"method": "resources/read"}, 600302, "Success"),
        ("call.denied", {"method": "tools/call"}, 600399, "Failure"),
        ("model.used", {"method": "models/chat"}, 600399, "Success"),
        ("approval.granted", {}, 300501, "Success"),
        ("key.created", {}, 300401, "Success"),
        ("key.revoked", {}, 300404, "Success"),
        ("config.changed", {"before": "", "after": "{}"}, 300401, "Success"),
        ("config.changed", {"before": "{}", "after": "{}"}, 300403, "Success"),
        ("config.changed", {"before": "{}", "after": ""}, 300404, "Success"),
        ("definition.rejected", {}, 300409, "Success"),
        ("server.connected", {}, 600203, "Success"),
        ("server.lost", {}, 600204, "Failure"),
        ("ledger.opened", {}, 99, "Success"),
    ],
)
def test_each_event_has_the_class_of_its_meaning(
    name: str, given: dict[str, Any], type_uid: int, status: str
) -> None:
    shown = ocsf_event_of(event(name, **given))
    assert (shown["type_uid"], shown["status"]) == (type_uid, status)


def test_actor_action_target_and_reason_have_their_standard_fields() -> None:
    result = event(
        "call.denied", server="docs", tool="search", key="bot", user="ann", code="rule_denied",
        reason="Not at night.", customer="acme", call_id="c1", id="c1.denied",
        at=1_763_708_342.123456,
    )  # fmt: skip
    shown = ocsf_event_of(result)
    assert shown["time"] == 1_763_708_342_123
    assert shown["actor"] == {"app_uid": "bot", "user": {"name": "ann", "type_id": 1}}
    assert shown["api"]["operation"] == "search"
    assert shown["api"]["service"] == {"name": "docs"}
    assert shown["metadata"]["tenant_uid"] == "acme"
    assert shown["metadata"]["correlation_uid"] == "c1"
    assert shown["metadata"]["uid"] == "c1.denied"
    assert (shown["status_code"], shown["status_detail"]) == ("rule_denied", "Not at night.")


def test_a_field_without_a_place_is_kept_unmapped() -> None:
    shown = ocsf_event_of(event("call.completed", charge=2000, latency_us=17))
    assert shown["unmapped"]["charge"] == 2000
    assert shown["unmapped"]["latency_us"] == 17
    assert shown["unmapped"]["prev"] == "ab" * 32


def test_an_event_of_an_unknown_name_is_a_base_event() -> None:
    shown = ocsf_event_of(
        {"event": "login.refused", "id": "x", "at": 1.0, "customer": "a", "who": "ann"}
    )
    assert faults(shown) == []
    assert (shown["class_uid"], shown["unmapped"]) == (0, {"who": "ann"})


@pytest.mark.parametrize(
    "line", [b"", b"[1]", b'{"event":"x"}', b'{"event":"x","id":"i","at":"no"}']
)
def test_an_invalid_line_has_no_ocsf_event(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an event|could not convert"):
        encode_ocsf(line)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"type_uid": 7}, "type_uid"),
        ({"severity_id": 42}, "severity_id"),
        ({"colour": "red"}, "colour is unknown"),
        ({"metadata": {"version": "1.8.0"}}, "metadata.product is required"),
        ({"actor": {}}, "actor."),
    ],
)
def test_the_schema_check_finds_invalid_events(change: dict[str, Any], problem: str) -> None:
    shown = ocsf_event_of(event("call.allowed")) | change
    assert any(each.startswith(problem) for each in faults(shown))
