"""Recorded checks compared with the configuration: what was checked, and every gap."""

from typing import Any

from toolbus_common.config import Configuration, Key
from toolbus_common.guards.coverage import Coverage, Share, selected

BOTH = {"kind": "secrets", "on": ["arguments", "results"]}
DECLARED = Configuration.model_validate(
    {
        "guards": {"secrets": BOTH, "pii": {"kind": "pii", "on": ["results"]}, "unused": BOTH},
        "servers": {"docs": {"url": "http://d.example", "tools": {"find": {"guards": ["pii"]}}}},
        "customers": {"acme": {"guards": ["secrets"]}},
        "teams": {"ops": {"customer": "acme"}},
        "keys": {"bot": {"team": "ops"}, "free": {}},
        "access": {"staff": {"issuer": "corp", "team": "ops"}},
        "issuers": {"corp": {"url": "https://corp.example", "audience": "toolbus"}},
    }
)
ROW: dict[str, Any] = {
    "customer": "acme", "key": "bot", "server": "docs", "tool": "find", "method": "tools/call",
    "event": "call.allowed", "made": ["secrets"], "failures": [], "team": "ops", "user": "",
    "current": 1, "calls": 4, "bytes": 100, "call_ids": ["c1"],
}  # fmt: skip


def coverage(*rows: dict[str, Any], **own: Key) -> Coverage:
    found = Coverage(DECLARED, own)
    for row in rows:
        found.add({**ROW, **row})
    return found


def share(found: Coverage, guard: str, phase: str) -> Share:
    (one,) = [each for each in found.shares() if (each.guard, each.phase) == (guard, phase)]
    return one


def test_a_guard_that_checked_every_call_has_no_gap() -> None:
    found = coverage({}, {"event": "call.completed", "made": ["pii", "secrets"]})
    assert found.gaps() == []
    assert share(found, "secrets", "arguments").percent == 100
    assert share(found, "pii", "results").attached_by == ("tool:docs__find",)
    assert not [each for each in found.shares() if each.guard == "unused"]


def test_an_event_without_the_check_of_an_attached_guard_is_a_gap_with_its_call_ids() -> None:
    found = coverage(
        {"event": "call.completed", "made": ["pii", "secrets"], "calls": 3, "bytes": 300},
        {"event": "call.completed", "made": ["pii"], "calls": 1, "bytes": 100, "call_ids": ["x"]},
    )
    (gap,) = found.gaps()
    assert (gap.guard, gap.phase, gap.missing, gap.call_ids) == ("secrets", "results", 1, ["x"])
    assert (gap.calls, gap.checked, gap.percent) == (4, 3, 75)
    assert (gap.bytes, gap.checked_bytes) == (400, 300)


def test_a_failed_check_is_a_gap_even_under_an_earlier_configuration() -> None:
    (gap,) = coverage({"failures": ["secrets"], "current": 0}).gaps()
    assert (gap.failed, gap.checked, gap.missing) == (4, 0, 0)


def test_a_call_that_an_earlier_configuration_decided_is_not_a_gap() -> None:
    found = coverage({}, {"made": [], "current": 0, "calls": 6})
    assert found.gaps() == []
    one = share(found, "secrets", "arguments")
    assert (one.calls, one.checked, one.exempt, one.percent) == (10, 4, 6, 40)


def test_a_guard_that_is_not_attached_any_more_is_shown_with_what_it_checked() -> None:
    one = share(coverage({"made": ["gone", "secrets"]}, {"calls": 4}), "gone", "arguments")
    assert (one.attached_by, one.checked, one.percent, one.is_gap) == ((), 4, 50, False)


def test_tools_without_any_guard_are_listed_with_their_calls() -> None:
    rows = {"key": "free", "server": "git", "tool": "log", "made": [], "customer": "default"}
    found = coverage({}, rows, {**rows, "event": "call.completed"})
    assert list(found.unguarded()) == [("default", "free", "git__log", 4)]


def test_individual_keys_and_signed_in_users_have_the_guards_of_their_levels() -> None:
    found = coverage(
        {"key": "own", "made": []}, {"key": "staff:5f1c", "user": "ann", "made": []},
        own=Key(team="ops"),
    )  # fmt: skip
    assert sorted((each.key, each.guard) for each in found.gaps()) == [
        ("own", "secrets"), ("staff:5f1c", "secrets"),
    ]  # fmt: skip


def test_an_unknown_key_is_named_and_has_no_gaps() -> None:
    found = coverage({"key": "deleted", "made": []})
    assert found.unknown_keys == {"deleted"}
    assert found.gaps() == []


def test_rows_are_selected_by_key_and_pattern_of_tools() -> None:
    assert selected(ROW, "", "")
    assert selected(ROW, "bot", "docs__*")
    assert not selected(ROW, "other", "")
    assert not selected(ROW, "bot", "git__*")
    assert selected({**ROW, "server": "claude", "tool": "haiku"}, "", "claude/*")
