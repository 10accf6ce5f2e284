"""Checks of guards in the audit store: the view, the saved queries, and the migration."""

from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

import pytest

from harness.audit.events import allowed, completed
from harness.audit.saved_queries import add, ask, part, query
from harness.engines.migrated_tables import migrations_before
from toolbus_audit.clickhouse import migrate
from toolbus_audit.clickhouse.row_mapper import columns, read
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.projections.guard_checks import guard_checks
from toolbus_audit.settings import Settings
from toolbus_cli.clients.guard_replay import CONTENTS, start
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    CallAllowed,
    CallDenied,
    CallFailed,
    GuardChecksQuery,
    RunCompleted,
    RunStarted,
)
from toolbus_common.contracts.events.base import Event
from toolbus_common.contracts.events.guards import GuardCheck, GuardFailed, encoded_checks
from toolbus_common.guards.coverage import Coverage
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.status.guard_alarms import OPEN_FAILURES, message

GUARDS = 22  # the number of the migration
AT = 1_763_708_400.0  # 2025-11-21 07:00 UTC
SINCE = "2025-11-21"


def check(guard: str = "secrets", phase: str = "arguments", **given: Any) -> GuardCheck:
    fields = {"verdict": "passed", "version": "v1", "bytes": 1024, "us": 100, **given}
    return GuardCheck(guard=guard, phase=phase, **fields)


def checks(*made: GuardCheck) -> str:
    return encoded_checks(made)


def denied(call: str, guards: str) -> CallDenied:
    return CallDenied(
        id=f"{call}.denied", at=AT, customer="acme", call_id=call, key="bot", server="docs",
        tool="search", code="guard_blocked", reason="found", guards=guards,
    )  # fmt: skip


def failed(call: str, guards: str) -> CallFailed:
    return CallFailed(
        id=f"{call}.failed", at=AT, customer="acme", call_id=call, key="bot", server="docs",
        tool="search", code="guard_failed", reason="late", sent=True, guards=guards,
    )  # fmt: skip


def events() -> list[Event]:
    """Return calls of one tool, one without a check of its result, and a call of another."""
    result: dict[str, Any] = {"phase": "results", "bytes": 2048, "us": 300}
    found = check(verdict="redacted", findings=("aws-key", "jwt"), score=0.9, **result)
    slow = check("azure", verdict="failed", error="it took longer than 0.3 s")
    return [
        allowed(call_id="c1", at=AT, arguments_bytes=100, guards=checks(check())),
        completed(call_id="c1", at=AT, result_bytes=300, guards=checks(found)),
        allowed(call_id="c2", at=AT, arguments_bytes=100, guards=checks(check())),
        completed(call_id="c2", at=AT, result_bytes=900),
        allowed(call_id="c3", at=AT, arguments_bytes=200, guards=checks(check(), slow)),
        completed(call_id="c3", at=AT, result_bytes=0, guards=checks(check(**result, cached=True))),
        denied("c4", checks(check(verdict="blocked", findings=("jwt",)))),
        denied("c5", checks(slow)),
        failed("c6", checks(check(phase="results", verdict="failed", error="late"))),
        allowed(call_id="o1", at=AT, tool="other", arguments_bytes=7),
    ]


async def test_the_view_has_one_row_for_each_check_with_all_its_fields(store: ClickHouse) -> None:
    await add(store, events())
    (row,) = await query(store, "SELECT * FROM guard_checks WHERE verdict = 'redacted'")
    assert row == {
        "at": "2025-11-21 07:00:00.000000", "customer": "acme", "team": "", "key": "bot",
        "server": "docs", "tool": "search", "method": "tools/call", "call_id": "c1",
        "event": "call.completed", "guard": "secrets", "phase": "results", "verdict": "redacted",
        "version": "v1", "findings": ["aws-key", "jwt"], "score": 0.9, "bytes": 2048, "us": 300,
        "cached": False, "error": "",
    }  # fmt: skip
    assert await query(store, "SELECT count() AS n FROM guard_checks") == [{"n": 9}]


async def test_coverage_shows_the_share_of_calls_and_bytes_and_tools_without_a_guard(
    store: ClickHouse,
) -> None:
    await add(store, events())
    names = ("tool", "stage", "guard", "calls", "checked", "failed", "percent", "percent_of_bytes")
    found = await ask(store, "guard-coverage", since=SINCE)
    assert [part(each, *names) for each in found] == [
        ("docs__other", "before", "", 1, 0, 0, 0, 0),
        ("docs__search", "before", "azure", 3, 0, 1, 0, 0),
        ("docs__search", "before", "secrets", 3, 3, 0, 100, 100),
        ("docs__search", "after", "secrets", 3, 2, 0, 66.67, 25),
    ]


async def test_findings_are_counted_by_guard_rule_and_tool(store: ClickHouse) -> None:
    await add(store, events())
    names = ("guard", "rule", "phase", "calls", "verdicts", "last_call")
    assert {part(each, *names[:4]) for each in await ask(store, "guard-findings", since=SINCE)} == {
        ("secrets", "aws-key", "results", 1),
        ("secrets", "jwt", "results", 1),
        ("secrets", "jwt", "arguments", 1),
    }


async def test_failures_show_which_calls_passed_without_a_check(store: ClickHouse) -> None:
    await add(store, events())
    names = ("guard", "phase", "error", "rejected", "passed")
    assert [part(each, *names) for each in await ask(store, "guard-failures", since=SINCE)] == [
        ("azure", "arguments", "it took longer than 0.3 s", 1, 1),
        ("secrets", "results", "late", 1, 0),
    ]


async def test_the_time_of_checks_excludes_verdicts_from_a_cache(store: ClickHouse) -> None:
    await add(store, events())
    rows = await ask(store, "guard-time", since=SINCE)
    (row,) = [each for each in rows if part(each, "guard", "phase") == ("secrets", "results")]
    assert part(row, "checks", "from_cache", "found", "failed") == (3, 1, 1, 1)
    assert part(row, "p50_us", "max_us", "us_per_kb") == (300, 300, 133.3)


async def test_checks_that_are_not_a_list_of_checks_are_no_rows_and_hide_no_others(
    store: ClickHouse,
) -> None:
    broken = ["{", "[1]", '"x"', '[{"guard":7}]', "null", '{"guard":"a"}']
    made: list[Event] = [
        allowed(call_id=f"b{n}", at=AT, guards=text) for n, text in enumerate(broken)
    ]
    await add(store, [*made, allowed(call_id="good", at=AT, guards=checks(check()))])
    found = await query(store, "SELECT call_id FROM guard_checks WHERE guard = 'secrets'")
    assert found == [{"call_id": "good"}]


def test_events_without_guards_have_no_column_for_them() -> None:
    line = b'{"event":"call.allowed","producer":"p","seq":1,' + allowed().encode()[1:]
    rows, _ = read("tb.event", 1, line)
    assert "guards" not in columns(rows).names


async def test_the_migration_adds_the_checks_to_a_store_with_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = migrations_before(GUARDS)
    assert len(before) < len(migrate.migrations())
    (tmp_path / "clickhouse").mkdir()
    with monkeypatch.context() as earlier:
        earlier.setattr(migrate, "migrations", lambda: before)
        store = ClickHouse(Settings(state_dir=tmp_path))
        await store.open()
        try:
            await add(store, [allowed(call_id="old", at=AT), *run("acme", "r1")])
        finally:
            await store.close()
    store = ClickHouse(Settings(state_dir=tmp_path))
    await store.open()
    try:
        await add(store, [allowed(call_id="new", at=AT, guards=checks(check()))], 2)
        found = await query(store, "SELECT call_id, guards != '' AS n FROM events")
        assert {part(each, "call_id", "n") for each in found} >= {("old", 0), ("new", 1)}
        assert await query(store, "SELECT call_id FROM guard_checks") == [{"call_id": "new"}]
        assert await query(store, "SELECT run, customer FROM runs") == [
            {"run": "r1", "customer": "acme"}
        ]
    finally:
        await store.close()


def run(customer: str, name: str) -> list[Event]:
    """Return the events of a program with one call."""
    about: dict[str, Any] = {
        "at": AT,
        "customer": customer,
        "call_id": name,
        "key": f"{customer}-bot",
    }
    about |= {"server": "toolbus", "tool": "run"}
    return [
        RunStarted(id=f"{customer}.{name}.started", **about),
        completed(
            id=f"{customer}.{name}.1", call_id=f"{customer}-1", parent_id=name, at=AT,
            customer=customer, charge=5,
        ),
        RunCompleted(id=f"{customer}.{name}.completed", **about),
    ]  # fmt: skip


async def test_a_run_has_only_the_calls_of_its_own_customer(store: ClickHouse) -> None:
    await add(store, [*run("acme", "same"), *run("beta", "same")])
    stray = completed(id="s", call_id="stray", parent_id="same", at=AT, customer="gamma", charge=9)
    await add(store, [stray], 2)
    sql = "SELECT customer, key, cost, length(inner_calls) AS calls FROM runs ORDER BY customer"
    assert await query(store, sql) == [
        {"customer": "acme", "key": "acme-bot", "cost": 5, "calls": 1},
        {"customer": "beta", "key": "beta-bot", "cost": 5, "calls": 1},
    ]


def declared() -> Configuration:
    """Return a configuration that attaches `secrets` to every call of the key."""
    both = {"kind": "secrets", "on": ["arguments", "results"]}
    return Configuration.model_validate(
        {
            "guards": {"secrets": both, "azure": {**both, "on": ["arguments"]}},
            "customers": {"acme": {"guards": ["secrets"]}},
            "teams": {"support": {"customer": "acme"}},
            "keys": {"bot": {"team": "support"}},
        }
    )


async def test_coverage_finds_the_call_whose_result_has_no_check(
    store: ClickHouse, tmp_path: Path
) -> None:
    made = [
        each.model_copy(update={"policy_version": 7}) if isinstance(each, CallAllowed) else each
        for each in events()
    ]
    await add(store, made)
    for revision, missing in ((7, [("secrets", "arguments", "o1"), ("secrets", "results", "c2")]),
                              (8, [])):  # fmt: skip
        found, people = Coverage(declared(), {}), PersonKeys(tmp_path / "people.key")
        asked = GuardChecksQuery(since=AT - 60, revision=revision)
        found.add_rows(await guard_checks(store, people, asked), lambda _row: True)
        gaps = [(each.guard, each.phase, *each.call_ids) for each in found.gaps() if each.missing]
        assert sorted(gaps) == missing
        failed_open = [each for each in found.gaps() if each.failed]
        assert [(each.guard, each.call_ids) for each in failed_open] == [("azure", ["c3"])]


async def test_recorded_contents_are_read_in_order_from_any_place(store: ClickHouse) -> None:
    await add(
        store,
        [
            allowed(call_id="a", at=AT, arguments='{"x":1}'),
            completed(call_id="a", at=AT, result='["y"]'),
            completed(call_id="b", at=AT, method="resources/read"),
        ],
    )
    place = start(datetime(2025, 11, 21, tzinfo=UTC))
    rows = await query(store, CONTENTS, **place)
    assert [part(each, "event", "content") for each in rows] == [
        ("call.allowed", '{"x":1}'),
        ("call.completed", '["y"]'),
    ]
    place |= {"seq": str(rows[0]["stream_seq"]), "line": str(rows[0]["line"])}
    assert [each["content"] for each in await query(store, CONTENTS, **place)] == ['["y"]']


async def test_the_alarm_names_each_guard_that_failed_open_in_the_last_hour_once_per_call(
    store: ClickHouse,
) -> None:
    now, slow = time(), check("azure", verdict="failed", error="late")
    failures = [
        GuardFailed(
            id=f"{guard}.f", at=now, customer="acme", call_id=call, server="docs", tool="search",
            guard=guard, phase="arguments", reason="late",
        )
        for guard, call in (("azure", "f1"), ("scan", "f2"))
    ]  # fmt: skip
    await add(
        store,
        [
            allowed(call_id="f1", at=now, guards=checks(slow)),
            allowed(call_id="f0", at=now - 7200, guards=checks(slow)),
            denied("f3", checks(slow)).model_copy(update={"at": now}),
            *failures,
        ],
    )
    rows = await query(store, OPEN_FAILURES)
    assert [part(each, "guard", "times", "reason") for each in rows] == [
        ("azure", 1, "late"), ("scan", 1, "late"),
    ]  # fmt: skip
    assert message("azure", 1, "late.").startswith("'azure' could not check 1 contents")
