"""A proposed rule replayed on recorded calls: what it would change, and what is unknown."""

from typing import Any

import pytest

from toolbus_common.config import Configuration, Rule
from toolbus_common.rules.replay import Replay, recorded

ETC = (
    "forbid(principal, action, resource) when {"
    ' context.arguments has path && context.arguments.path like "/etc*" };'
)
PROD = 'forbid(principal, action, resource) when { principal.environment == "prod" };'
LABEL = 'forbid(principal, action, resource) when { resource.labels.contains("risky") };'
ROW: dict[str, Any] = {
    "call_id": "c1", "seconds": 1_800_000_000.0, "customer": "default", "team": "", "user": "",
    "environment": "", "key": "bot", "server": "docs", "tool": "read", "method": "tools/call",
    "family": "modern", "charge": "0", "code": "", "rule": "", "arguments": "",
    "event": "call.allowed",
}  # fmt: skip


def replayed(
    cedar: str, *rows: dict[str, Any], declared: Configuration | None = None, **fields: Any
) -> dict[str, Any]:
    played = Replay({"new": Rule.model_validate({"cedar": cedar, **fields})})
    for row in rows:
        played.add(recorded({**ROW, **row}, declared or Configuration()))
    return played.report.as_data


def test_a_call_the_rule_would_reject_is_counted_and_shown() -> None:
    result = replayed(ETC, {"arguments": '{"path": "/etc/x"}'}, {"arguments": '{"path": "/tmp"}'})
    assert (result["calls"], result["refused"], result["same"]) == (2, 1, 1)
    assert result["by_key"] == {"bot": {"refused": 1, "same": 1}}
    assert result["by_tool"] == {"docs__read": {"refused": 1, "same": 1}}
    (example,) = result["examples"]["refused"]
    assert (example["call_id"], example["rule"]) == ("c1", "new")


@pytest.mark.parametrize(
    ("cedar", "row", "fields", "counted"),
    [
        (ETC, {"arguments": ""}, {}, "unknown"),
        (ETC, {"arguments": '{"path": "/etc/…'}, {}, "unknown"),
        (PROD, {"environment": "prod"}, {"shadow": True}, "refused"),
        (PROD, {"environment": "prod"}, {"effect": "approve"}, "approval"),
        (PROD, {"rule": "other", "code": "rule_denied"}, {}, "same"),
    ],
    ids=["no arguments", "cut arguments", "shadow rule", "approval rule", "other rule's denial"],
)
def test_a_call_is_counted_by_what_the_rule_would_change(
    cedar: str, row: dict[str, Any], fields: dict[str, Any], counted: str
) -> None:
    assert replayed(cedar, row, **fields)[counted] == 1


def test_a_rule_without_arguments_decides_every_call() -> None:
    result = replayed(PROD, {"environment": "prod"}, {"environment": "dev"})
    assert (result["refused"], result["same"], result["unknown"]) == (1, 1, 0)


def test_a_call_rejected_by_the_same_rule_may_now_be_allowed() -> None:
    refused = {"rule": "new", "code": "rule_denied"}
    assert replayed(PROD, refused)["allowed"] == 1
    assert replayed(PROD, {**refused, "environment": "prod"})["same"] == 1


def test_a_call_that_waited_for_approval_may_now_be_rejected() -> None:
    request = {"rule": "new", "code": "approval_required", "environment": "prod"}
    assert replayed(PROD, request)["refused"] == 1
    assert replayed(PROD, request, effect="approve")["same"] == 1


def test_a_call_with_a_requested_approval_counts_as_waiting() -> None:
    # The client was shown a page or received a task.
    request = {"rule": "new", "event": "approval.requested", "environment": "prod"}
    assert replayed(PROD, request, effect="approve")["same"] == 1
    assert replayed(PROD, request)["refused"] == 1
    assert replayed(PROD, {**request, "environment": "dev"})["allowed"] == 1


def test_a_call_that_an_unchanged_rule_rejects_too_is_not_allowed() -> None:
    denied = {"rule": "new", "code": "rule_denied", "environment": "prod"}
    other = {"other": Rule(cedar=PROD)}
    changed = {"new": Rule(cedar=LABEL)}
    for others, outcome in ((other, "same"), ({}, "allowed")):
        played = Replay(changed, others)
        played.add(recorded({**ROW, **denied}, Configuration()))
        assert played.report.total == {outcome: 1}


def test_a_removed_rule_no_longer_rejects_its_calls() -> None:
    played = Replay({}, {"other": Rule(cedar=LABEL, shadow=True)}, ["old"])
    for rule in ("old", "other", ""):
        played.add(recorded({**ROW, "rule": rule, "code": "rule_denied"}, Configuration()))
    assert played.report.total == {"allowed": 1, "same": 2}
    assert played.report.as_data["examples"]["allowed"][0]["recorded"] == "denied"


@pytest.mark.parametrize(
    ("condition", "method", "missing"),
    [
        ("context.arguments has a", "tools/call", "arguments"),
        ("context has model && context.model.stream", "models/chat", "sizes of model requests"),
        ("context.run.has_read_private", "tools/call", "what the run had read"),
        ('resource.reads.contains("private")', "tools/call", "what the run had read"),
    ],
)
def test_unknown_calls_are_counted_by_what_was_not_recorded(
    condition: str, method: str, missing: str
) -> None:
    cedar = f"forbid(principal, action, resource) when {{ {condition} }};"
    result = replayed(cedar, {"method": method})
    assert (result["unknown"], result["missing"]) == (1, {missing: 1})


def test_labels_are_those_of_the_current_configuration() -> None:
    declared = Configuration(labels={"docs__*": ("risky",)})
    assert replayed(LABEL, {})["same"] == 1
    assert replayed(LABEL, {}, declared=declared)["refused"] == 1


def test_the_customer_is_the_recorded_one_or_none() -> None:
    acme = 'forbid(principal in Customer::"acme", action, resource);'
    without_customer = 'forbid(principal, action, resource) when { principal.customer == "" };'
    assert replayed(acme, {"customer": "acme"}, {})["refused"] == 1
    assert replayed(without_customer, {"customer": "acme"}, {})["refused"] == 1
