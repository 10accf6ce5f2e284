"""Roll-ups by hour and day: they agree with the events after kills, duplicates and late events."""

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbits
from typing import Any

import pytest

import analytics
from harness.engines.migrated_tables import migrated, migrations_before
from toolbus_audit.clickhouse import migrate as migrating
from toolbus_audit.clickhouse import store as storing
from toolbus_audit.clickhouse.row_mapper import EventRow, token
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.ingest.rollups import roll_up_days, roll_up_hours
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.saved_queries import catalogue as saved_queries

HOUR = 1_763_708_400.0  # 2025-11-21 07:00 UTC
PLAIN = "SELECT count() AS n, sum(charge) AS c FROM events"
SUMMED = "SELECT sum(events) AS n, sum(charge) AS c FROM events_by_hour"
OF_DAYS = "SELECT sum(events) AS n, sum(charge) AS c FROM events_by_day"
DAYS_HELD = "SELECT countIf(valid) AS held, count() AS of FROM days"
SUMS_HELD = "SELECT countIf(valid) AS held, count() AS of FROM hours"


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[ClickHouse]:
    store = ClickHouse(AuditSettings(state_dir=migrated(directory), audit_query_seconds=60.0))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def query(store: ClickHouse, sql: str, **parameters: str) -> list[dict[str, Any]]:
    body = json.loads(await store.query(sql, 10_000, parameters))
    names = [column["name"] for column in body["meta"]]
    return [dict(zip(names, row, strict=True)) for row in body["data"]]


def event(name: str, call: str, at: float, **given: Any) -> EventRow:
    row = {
        "event": name, "id": f"{call}.{name}", "at": at, "producer": "p", "seq": 1,
        "customer": "acme", "key": "bot", "call_id": call, "server": "docs", "tool": "search",
        "stream_seq": randbits(60), "detail": "{}", **given,
    }  # fmt: skip
    return EventRow(**row)


async def add(store: ClickHouse, *rows: EventRow) -> None:
    await store.insert("events", list(rows), token(list(rows)))


async def added_up(store: ClickHouse) -> None:
    while await roll_up_hours(store.run_in_background) or await roll_up_days(
        store.run_in_background
    ):
        pass


async def agree(store: ClickHouse) -> dict[str, Any]:
    (plain,), (summed,) = await query(store, PLAIN), await query(store, SUMMED)
    assert plain == summed
    return plain


async def days_agree(store: ClickHouse) -> dict[str, Any]:
    (plain,), (summed,) = await query(store, PLAIN), await query(store, OF_DAYS)
    assert plain == summed
    return plain


async def test_roll_ups_agree_with_the_events_before_and_after_they_are_computed(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as store:
        await add(
            store, *(event("call.allowed", f"c{n}", HOUR + n, team="a", charge=5) for n in range(9))
        )
        await add(store, *(event("call.completed", f"c{n}", HOUR + n, charge=3) for n in range(8)))
        assert await agree(store) == {"n": 17, "c": 69}
        assert await roll_up_hours(store.run_in_background) == 1
        assert await query(store, SUMS_HELD) == [{"held": 1, "of": 1}]
        assert await agree(store) == {"n": 17, "c": 69}
        assert await roll_up_hours(store.run_in_background) == 0


async def test_a_day_is_rolled_up_once_it_has_passed_and_all_its_hours_are(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, event("call.completed", "c1", HOUR, charge=3))
        await roll_up_hours(store.run_in_background)
        await add(store, event("call.completed", "c2", HOUR + 3600, charge=4))
        assert await roll_up_days(store.run_in_background) == 0
        await roll_up_hours(store.run_in_background)
        assert await roll_up_days(store.run_in_background) == 1
        assert await query(store, DAYS_HELD) == [{"held": 1, "of": 1}]
        assert await days_agree(store) == {"n": 2, "c": 7}
        await add(store, event("call.completed", "c3", datetime.now(UTC).timestamp() + 86_400))
        await store.run_in_background(  # as written by a replica with a clock ahead
            "INSERT INTO rollup_hours_done (hour, customer, events, version)"
            " SELECT hour, customer, events, 1 FROM hours WHERE NOT valid"
        )
        assert await query(store, SUMS_HELD) == [{"held": 3, "of": 3}]
        assert await roll_up_days(store.run_in_background) == 0


async def test_a_day_with_late_or_deleted_events_is_read_by_the_hour_until_rolled_up_again(
    tmp_path: Path,
) -> None:
    rows = [event("call.completed", f"c{n}", HOUR + n * 3600, charge=1 << n) for n in range(3)]
    rows.append(event("call.completed", "of-another", HOUR, charge=64, customer="beta"))
    gone = "ALTER TABLE events DELETE WHERE call_id IN ({}) SETTINGS mutations_sync = 2"
    async with opened(tmp_path) as store:
        await add(store, *rows)
        await added_up(store)
        await add(store, event("call.completed", "late", HOUR, charge=8))
        assert await days_agree(store) == {"n": 5, "c": 1 + 2 + 4 + 8 + 64}
        assert await roll_up_hours(store.run_in_background) == 1
        assert await days_agree(store) == {"n": 5, "c": 1 + 2 + 4 + 8 + 64}
        assert await roll_up_days(store.run_in_background) == 1
        assert await days_agree(store) == {"n": 5, "c": 1 + 2 + 4 + 8 + 64}
        await store.command(gone.format("'c0', 'late'"))  # an hour
        assert await days_agree(store) == {"n": 3, "c": 2 + 4 + 64}
        await store.command(gone.format("'c1', 'c2'"))  # and the customer's day
        assert await days_agree(store) == {"n": 1, "c": 64}
        assert await query(store, DAYS_HELD) == [{"held": 1, "of": 1}]


async def test_an_incomplete_or_outdated_day_is_not_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, event("call.completed", "c", HOUR, charge=3))
        await roll_up_hours(store.run_in_background)
        await store.run_in_background(
            "INSERT INTO rollup_days (day, customer, event, events, charge, version)"
            f" VALUES (toDate({int(HOUR)}), 'acme', 'call.completed', 1, 99, 12)"
        )
        assert await days_agree(store) == {"n": 1, "c": 3}
        # As written by an overtaken replica: an hour was rolled up again in the meantime.
        await store.run_in_background(
            "INSERT INTO rollup_days_done (day, customer, events, source_hash, version)"
            f" VALUES (toDate({int(HOUR)}), 'acme', 1, 5, 12)"
        )
        assert await days_agree(store) == {"n": 1, "c": 3}
        await roll_up_days(store.run_in_background)
        assert await days_agree(store) == {"n": 1, "c": 3}


async def test_a_late_event_is_counted_at_once_and_the_hour_rolled_up_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, event("call.completed", "early", HOUR, charge=3))
        await roll_up_hours(store.run_in_background)
        await add(store, event("call.completed", "late", HOUR + 5, charge=4))
        assert await agree(store) == {"n": 2, "c": 7}
        assert await query(store, SUMS_HELD) == [{"held": 0, "of": 1}]
        assert await roll_up_hours(store.run_in_background) == 1
        assert await query(store, SUMS_HELD) == [{"held": 1, "of": 1}]
        assert await agree(store) == {"n": 2, "c": 7}


async def test_a_repeated_batch_counts_once(tmp_path: Path) -> None:
    batch = [event("call.completed", f"c{n}", HOUR + n, charge=1) for n in range(5)]
    async with opened(tmp_path) as store:
        for _ in range(3):
            await add(store, *batch)
            assert await agree(store) == {"n": 5, "c": 5}
            await roll_up_hours(store.run_in_background)


async def test_incomplete_roll_ups_are_not_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, event("call.completed", "c", HOUR, charge=3))
        # The state after a kill between the two statements, or in the first one.
        await store.run_in_background(
            "INSERT INTO rollup_hours (hour, customer, event, events, charge, version)"
            f" VALUES (toDateTime({int(HOUR)}), 'acme', 'call.completed', 7, 99, 12)"
        )
        assert await agree(store) == {"n": 1, "c": 3}
        await roll_up_hours(store.run_in_background)
        assert await agree(store) == {"n": 1, "c": 3}


async def test_events_older_than_the_roll_ups_are_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clickhouse").mkdir()  # empty: this test runs the migrations
    known = migrations_before(10)
    for module in (migrating, storing):
        monkeypatch.setattr(module, "migrations", lambda: known)
    detail = json.dumps(
        {"own_tokens": 1, "request_tokens": 2, "answer_tokens": 4, "classic": {"a": 50, "b": 3}}
    )
    async with opened(tmp_path) as store:
        await add(store, event("context.spent", "old", HOUR, detail=detail))
        await add(store, event("call.completed", "old", HOUR, charge=3))
    monkeypatch.undo()
    async with opened(tmp_path) as store:
        for _ in range(2):
            assert await agree(store) == {"n": 2, "c": 3}
            (tokens,) = await query(
                store,
                "SELECT sum(spent_tokens) AS s, sum(classic_tokens) AS c FROM context_by_hour",
            )
            assert tokens == {"s": 7, "c": 53}
            await roll_up_hours(store.run_in_background)


async def test_an_outcome_gets_the_team_its_key_had(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(
            store,
            event("call.allowed", "c1", HOUR, team="old"),
            event("call.completed", "c1", HOUR + 3600, charge=1),  # an hour later
            event("call.allowed", "c2", HOUR + 7200, team="new"),
            event("call.completed", "c2", HOUR + 7201, charge=2),
            event("call.denied", "c3", HOUR + 7202, team="new", charge=9),
            event("call.completed", "c4", HOUR, charge=4, key="other"),
        )
        text = (
            "SELECT team, sum(calls) AS calls, sum(charge) AS c"
            " FROM calls_by_hour GROUP BY team ORDER BY c"
        )
        for _ in range(2):
            assert await query(store, text) == [
                {"team": "old", "calls": 1, "c": 1},
                {"team": "new", "calls": 2, "c": 2},
                {"team": "", "calls": 1, "c": 4},
            ]
            await roll_up_hours(store.run_in_background)


async def test_the_charge_of_an_unknown_outcome_is_replaced_when_the_call_ends(
    tmp_path: Path,
) -> None:
    unknown = [
        event("call.failed", call, HOUR, charge=10, id=f"{call}.unknown", code="outcome_unknown")
        for call in ("c", "d")
    ]
    text = (
        "SELECT sum(calls) AS n, sum(failed) AS f, sum(completed) AS d, sum(charge) AS c"
        " FROM calls_by_hour"
    )
    in_usage = "SELECT sum(charge) AS c FROM usage"
    async with opened(tmp_path) as store:
        await add(store, *unknown)
        await added_up(store)
        assert await query(store, text) == [{"n": 2, "f": 2, "d": 0, "c": 20}]
        await add(store, event("call.completed", "c", HOUR + 4000, charge=7))
        for _ in range(2):
            assert await query(store, text) == [{"n": 2, "f": 1, "d": 1, "c": 17}]
            assert await query(store, in_usage) == [{"c": 17}]
            await added_up(store)
        await add(store, event("call.failed", "d", HOUR + 3 * 86_400, charge=1))
        for _ in range(2):
            assert await query(store, text) == [{"n": 2, "f": 1, "d": 1, "c": 8}]
            assert await query(store, in_usage) == [{"c": 8}]
            await added_up(store)
        assert await query(store, text.replace("hour", "day")) == await query(store, text)


WRITER = """
import asyncio, sys
from pathlib import Path
from test_roll_ups import add, event, opened, HOUR
from toolbus_audit.ingest.rollups import roll_up_days, roll_up_hours

async def main():
    async with opened(Path(sys.argv[1])) as store:
        print("open", flush=True)
        batch = int(sys.argv[2])
        while True:
            ats = ((n, HOUR + n % 7200) for n in range(500))
            rows = [event("call.completed", f"b{batch}-{n}", at, charge=1) for n, at in ats]
            await add(store, *rows)
            print("wrote", flush=True)
            await roll_up_hours(store.run_in_background)
            await roll_up_days(store.run_in_background)
            batch += 1

asyncio.run(main())
"""


async def test_an_outcome_of_a_past_week_replaces_the_unknown_one_with_the_roll_ups(
    tmp_path: Path,
) -> None:
    in_usage = "SELECT sum(charge) AS c FROM usage"
    async with opened(tmp_path) as store:
        await add(
            store,
            event("call.failed", "c", HOUR, code="outcome_unknown", charge=9, id="c.unknown"),
            event("call.completed", "d", HOUR + 30 * 86_400, charge=1),
        )
        await added_up(store)
        assert await query(store, in_usage) == [{"c": 10}]
        await add(store, event("call.completed", "c", HOUR + 60, charge=7))
        await added_up(store)
        assert await query(store, in_usage) == [{"c": 8}]


async def test_usage_does_not_count_the_events_of_all_hours(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, event("call.completed", "c", HOUR, charge=1))
        await store.command("DROP TABLE rollup_hours_done")  # without it no hour can be counted
        assert await query(store, "SELECT sum(charge) AS c FROM usage") == [{"c": 1}]


def test_kills_during_inserts_leave_roll_ups_that_agree(tmp_path: Path) -> None:
    program = tmp_path / "writer.py"
    program.write_text(textwrap.dedent(WRITER))
    store = tmp_path / "store"
    store.mkdir()
    counts = []
    for number in range(2):
        paths = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
        with subprocess.Popen(
            [sys.executable, str(program), str(store), str(number * 10_000)],
            env=paths, stdout=subprocess.PIPE,
        ) as writer:  # fmt: skip
            try:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"open\n"
                assert writer.stdout.readline() == b"wrote\n"
                time.sleep(number * 0.13)  # at some moment of its work
            finally:
                writer.send_signal(signal.SIGKILL)
        counts.append(asyncio.run(_checked(store)))
    assert counts == sorted(counts)


async def _checked(directory: Path) -> int:
    async with opened(directory) as store:
        before = await agree(store)
        await added_up(store)
        assert await agree(store) == await days_agree(store) == before
        return int(before["n"])


@pytest.fixture(scope="module")
def analytics_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create events of every kind over two days, as `make bench-analytics` does."""
    directory = tmp_path_factory.mktemp("analytics")

    async def fill() -> None:
        async with opened(directory) as store:
            await analytics.fill_tables(store, 20_000, datetime.now(UTC), days=2)
            await agree(store)

    asyncio.run(fill())
    return directory


async def test_days_agree_with_their_hours(analytics_store: Path) -> None:
    text = """SELECT {day} AS day, customer, team, key, server, tool, code, sum(calls),
        sum(completed), sum(failed), sum(denied), sum(errors), sum(charge),
        quantilesTDigestMerge(0.5, 0.9, 0.95, 0.99)(latency)
        FROM {of} GROUP BY day, customer, team, key, server, tool, code ORDER BY ALL"""
    async with opened(analytics_store) as store:
        (days,) = await query(store, DAYS_HELD)
        assert days["held"] > 0
        by_hour = await query(store, text.format(day="toDate(hour)", of="calls_by_hour"))
        assert await query(store, text.format(day="day", of="calls_by_day")) == by_hour


async def test_every_panel_of_every_dashboard_finds_rows(analytics_store: Path) -> None:
    panels = list(analytics.panels(datetime.now(UTC)))
    boards = {"operators", "analysts", "security", "finance", "models"}
    assert {panel.board for panel in panels} >= boards
    assert len(panels) >= 48
    async with opened(analytics_store) as store:
        empty = [
            f"{each.board}: {each.title}" for each in panels if not await query(store, each.sql)
        ]
    assert empty == []


async def test_every_saved_query_is_answered(analytics_store: Path) -> None:
    now = datetime.now(UTC)
    async with opened(analytics_store) as store:
        (call,) = await query(
            store, "SELECT any(call_id) AS call FROM events WHERE event = 'call.denied'"
        )
        (run,) = await query(store, "SELECT any(run) AS run FROM usage WHERE kind = 'models'")
        for question in saved_queries.known(None).values():
            given = {"one-call": call, "one-run": run}.get(question.name, {})
            if question.name == "who-called":
                given = {"minutes": "600"}
            found = await query(store, question.sql, **question.bound(given, now))
            assert found, question.name
