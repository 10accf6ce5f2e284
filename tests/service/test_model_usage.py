"""Model requests in the audit store: views, saved queries, roll-ups and spending."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from harness.apis.model_provider import ModelProvider
from harness.audit.events import allowed, completed
from harness.engines.migrated_tables import migrated
from harness.services.model_gateway import ModelGateway, provider
from toolbus_audit.clickhouse.row_mapper import read, token
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.ingest.rollups import roll_up_days, roll_up_hours
from toolbus_audit.projections.clickhouse_calls import ClickHouseCalls
from toolbus_audit.projections.spending import open_calls, spending
from toolbus_audit.settings import Settings
from toolbus_common.contracts import (
    CallDenied,
    CallFailed,
    ModelUsed,
    OpenCallsQuery,
    SpendingQuery,
)
from toolbus_common.contracts.events.base import Event
from toolbus_common.contracts.model_calls import CHAT
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.saved_queries import catalogue as saved_queries

AT = 1_763_708_400.0  # 2025-11-21 07:00 UTC
SINCE = {"since": "2025-11-21"}
RUN, OTHER_RUN = "aa" * 16, "bb" * 16
MODEL = {"server": "claude", "tool": "haiku", "method": CHAT, "trace_id": RUN}
FALLBACK = {**MODEL, "server": "local", "tool": "gemma", "parent_id": "m2"}


def used(call: str, at: float = AT + 1, **given: Any) -> ModelUsed:
    """Return the event of an answered model request. `given` overrides its fields."""
    fields = {"id": f"{call}.used", "at": at, "customer": "acme", "key": "bot", **MODEL, **given}
    return ModelUsed(call_id=call, **fields)


def failed(call: str, at: float = AT + 1, **given: Any) -> CallFailed:
    """Return the event of a failed call. `given` overrides its fields."""
    fields = {
        "id": f"{call}.failed", "at": at, "customer": "acme", "key": "bot", "server": "docs",
        "tool": "search", "code": "upstream_timeout", "reason": "Too slow.", "sent": True, **given,
    }  # fmt: skip
    return CallFailed(call_id=call, **fields)


def denied(call: str, at: float = AT + 1, **given: Any) -> CallDenied:
    """Return the event of a denied call. `given` overrides its fields."""
    fields = {
        "id": f"{call}.denied", "at": at, "customer": "acme", "key": "bot", "server": "docs",
        "tool": "delete", "code": "rule_denied", "reason": "Not at night.", "charge": 9, **given,
    }  # fmt: skip
    return CallDenied(call_id=call, **fields)


def one_run() -> list[Event]:
    """Return the events of a run: two tools, a denied tool, a model, and a model with a fallback.

    Another run of another team has one model request.
    """
    ann: dict[str, Any] = {"user": "ann", "trace_id": RUN, "at": AT}
    eve: dict[str, Any] = {"user": "eve", "team": "sales", "key": "other"}
    other = {**MODEL, "trace_id": OTHER_RUN}
    return [
        allowed(call_id="t1", **ann),
        completed(call_id="t1", trace_id=RUN, at=AT + 1, charge=2000, latency_us=1000),
        allowed(call_id="t2", **ann),
        failed("t2", trace_id=RUN),
        denied("t3", AT + 8, trace_id=RUN, team="support", user="ann"),
        allowed(call_id="m1", **{**ann, **MODEL, "at": AT + 3}, aliases=("fast", "best")),
        completed(call_id="m1", **MODEL, at=AT + 4, charge=500_000, latency_us=1_100_000),
        used(
            "m1", AT + 4, charge=500_000, input_tokens=900, cached_tokens=300, output_tokens=100,
            cached_savings=270, reasoning_tokens=40, streamed=True, first_token_us=100_000,
            latency_us=1_100_000,
            alias="fast", finish_reason="stop",
        ),
        allowed(call_id="m2", **{**ann, **MODEL, "at": AT + 5}),
        failed("m2", AT + 6, **MODEL),
        allowed(call_id="m3", **{**ann, **FALLBACK, "at": AT + 6}),
        completed(call_id="m3", **FALLBACK, at=AT + 7, latency_us=9000),
        used("m3", AT + 7, input_tokens=50, output_tokens=5, attempt=1, **FALLBACK),
        allowed(call_id="m4", **{**other, **eve, "at": AT}),
        completed(call_id="m4", **other, key="other", at=AT + 1, charge=100),
        used("m4", AT + 1, key="other", charge=100, input_tokens=10, trace_id=OTHER_RUN),
    ]  # fmt: skip


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[ClickHouse]:
    store = ClickHouse(Settings(state_dir=migrated(directory)))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ClickHouse]:
    """Open an empty store."""
    async with opened(tmp_path) as store:
        yield store


@pytest.fixture(scope="module")
def directory_of_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store the events of `one_run`, and an open call of the same run."""
    directory = tmp_path_factory.mktemp("run")

    async def fill() -> None:
        async with opened(directory) as store:
            await add(
                store,
                [*one_run(), allowed(call_id="open", user="ann", **MODEL, at=AT + 9, charge=77)],
            )

    asyncio.run(fill())
    return directory


@pytest.fixture
async def run_store(directory_of_run: Path) -> AsyncIterator[ClickHouse]:
    """Open the store with the events of `one_run`. Tests only read it."""
    async with opened(directory_of_run) as store:
        yield store


async def add(store: ClickHouse, events: list[Event], sequence: int = 1) -> None:
    """Store events as audit does: from the lines of a message."""
    lines = [
        b'{"event":"%b","producer":"p","seq":%d,%b' % (each.NAME.encode(), seq, each.encode()[1:])
        for seq, each in enumerate(events, 1)
    ]
    rows, dead = read("tb.event", sequence, b"\n".join(lines), "1")
    assert dead == []
    await store.insert("events", rows, token(rows))


async def query(store: ClickHouse, sql: str, **parameters: str) -> list[dict[str, Any]]:
    body = json.loads(await store.query(sql, 10_000, parameters))
    names = [column["name"] for column in body["meta"]]
    return [dict(zip(names, row, strict=True)) for row in body["data"]]


async def ask(store: ClickHouse, name: str, **given: str) -> list[dict[str, Any]]:
    """Return the rows of a saved query."""
    question = saved_queries.chosen(name, None)
    found = question.bound({**SINCE, **given}, datetime.now(UTC))
    return await query(store, question.sql, **found)


def part(row: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


async def test_cost_and_tokens_of_a_run_are_one_row_for_tools_and_models(
    run_store: ClickHouse,
) -> None:
    run, other = await ask(run_store, "cost-by-run")
    assert part(run, "run", "customer", "team", "user", "keys") == (
        RUN, "acme", "support", "ann", "bot",
    )  # fmt: skip
    assert part(run, "model_requests", "tool_calls", "failed", "denied") == (3, 2, 2, 1)
    assert part(run, "input_tokens", "output_tokens") == (950, 105)
    assert part(run, "model_dollars", "tool_dollars", "dollars") == (0.5, 0.002, 0.502)
    assert run["called"] == "claude/haiku docs__delete docs__search local/gemma"
    assert part(other, "run", "team", "user", "dollars") == (OTHER_RUN, "sales", "eve", 0.0001)


async def test_the_calls_of_a_run_are_listed_in_order_with_their_tokens(
    run_store: ClickHouse,
) -> None:
    rows = await ask(run_store, "one-run", run=RUN)
    names = ("call_id", "kind", "state", "code", "input_tokens", "user")
    assert {part(each, *names) for each in rows} == {
        ("t1", "tools", "completed", "", 0, "ann"),
        ("t2", "tools", "failed", "upstream_timeout", 0, "ann"),
        ("m1", "models", "completed", "", 900, "ann"),
        ("m2", "models", "failed", "upstream_timeout", 0, "ann"),
        ("m3", "models", "completed", "", 50, "ann"),
        ("t3", "tools", "denied", "rule_denied", 0, "ann"),
        ("open", "models", "open", "", 0, "ann"),
    }
    assert [each["call_id"] for each in rows][2:] == ["m1", "m2", "m3", "t3", "open"]


async def test_cost_is_summed_for_each_caller(run_store: ClickHouse) -> None:
    names = ("team", "user", "key", "model_requests", "tool_calls", "input_tokens", "dollars")
    assert [part(each, *names) for each in await ask(run_store, "cost-by-caller")] == [
        ("support", "ann", "bot", 3, 2, 950, 0.502),
        ("sales", "eve", "other", 1, 0, 10, 0.0001),
    ]


async def test_a_run_is_charged_once_when_an_unknown_outcome_arrives_later(
    store: ClickHouse,
) -> None:
    unknown = failed("m1", AT + 1, **MODEL, id="m1.unknown", charge=800_000, code="outcome_unknown")
    await add(store, [unknown])
    (run,) = await ask(store, "cost-by-run")
    assert part(run, "dollars", "model_requests") == (0.8, 1)
    await add(store, one_run(), 2)
    (run, _) = await ask(store, "cost-by-run")
    assert part(run, "dollars", "model_requests") == (0.502, 3)


async def test_a_repeated_batch_counts_its_tokens_once(store: ClickHouse) -> None:
    for _ in range(3):
        await add(store, one_run())
    assert await query(store, "SELECT sum(input_tokens) AS n FROM usage") == [{"n": 960}]


async def test_spending_on_models_by_team_is_the_same_before_and_after_the_roll_ups(
    store: ClickHouse,
) -> None:
    await add(store, one_run())
    names = ("team", "provider", "model", "answered", "input_tokens", "cached_tokens", "dollars")
    expected = [
        ("support", "claude", "haiku", 1, 900, 300, 0.5),
        ("sales", "claude", "haiku", 1, 10, 0, 0.0001),
        ("support", "local", "gemma", 1, 50, 0, 0.0),
    ]
    by_day = "SELECT sum(output_tokens) AS n, sum(requests) AS r FROM models_by_day"
    for _ in range(2):
        assert [part(each, *names) for each in await ask(store, "model-spend")] == expected
        assert await query(store, by_day) == [{"n": 105, "r": 3}]
        await roll_up_hours(store.run_in_background)
        await roll_up_days(store.run_in_background)
    assert await query(store, "SELECT countIf(valid) AS n FROM days") == [{"n": 1}]
    await add(store, [used("late", input_tokens=7)], 2)
    (total,) = await query(store, "SELECT sum(input_tokens) AS n FROM models_by_day")
    assert total == {"n": 967}


async def test_the_first_token_and_the_rate_have_percentiles(store: ClickHouse) -> None:
    streams = [
        used(
            f"s{n}", streamed=True, first_token_us=n * 1000, latency_us=n * 1000 + 1_000_000,
            output_tokens=n,
        )
        for n in range(1, 102)
    ]  # fmt: skip
    await add(
        store, [*streams, used("whole", latency_us=7, output_tokens=9), used("none", cut=True)]
    )
    (row,) = await ask(store, "model-latency")
    assert part(row, "provider", "model", "requests", "streams", "cut") == (
        "claude", "haiku", 103, 101, 1,
    )  # fmt: skip
    assert part(row, "first_p50_ms", "rate_p50") == (51, 51)
    assert row["first_p50_ms"] < row["first_p95_ms"] < row["first_p99_ms"] <= 101
    assert row["rate_p50"] > row["rate_p5"] > row["rate_p1"] >= 1


async def test_fallbacks_show_the_failed_target_and_the_target_that_answered(
    run_store: ClickHouse,
) -> None:
    names = ("provider", "model", "failed", "answered", "answered_as_fallback", "codes")
    assert [part(each, *names) for each in await ask(run_store, "model-fallbacks")] == [
        ("claude", "haiku", 1, 2, 0, "upstream_timeout"),
        ("local", "gemma", 0, 1, 1, ""),
    ]


async def test_a_suggested_call_names_the_model_response_that_led_to_it(
    store: ClickHouse,
) -> None:
    suggested: list[Event] = [
        allowed(call_id="s1", at=AT + 10, trace_id="cc" * 16, user="ann", suggested_by="m1"),
        completed(call_id="s1", trace_id="cc" * 16, at=AT + 11),
        allowed(call_id="s2", at=AT + 12, trace_id="dd" * 16, user="ann", suggested_by="m4"),
    ]
    await add(store, [*one_run(), *suggested])
    names = ("call_id", "server", "decision", "suggested_by", "provider", "model", "finish_reason")
    first = ("s1", "docs", "allowed", "m1", "claude", "haiku", "stop")
    # `m4` is a model request of another key, so it is not shown as the source.
    second = ("s2", "docs", "allowed", "m4", "", "", "")
    found = await ask(store, "suggested-calls")
    assert [part(each, *names) for each in found] == [first, second]
    found = await ask(store, "suggested-calls", call="s1")
    assert [part(each, *names) for each in found] == [first]
    rows = await ask(store, "one-run", run=RUN)
    assert [each["call_id"] for each in rows][2:] == ["m1", "m2", "m3", "t3", "s1"]
    assert [each["suggested_by"] for each in rows if each["suggested_by"]] == ["m1"]


async def test_savings_of_the_cache_are_summed_by_team_and_model(store: ClickHouse) -> None:
    await add(
        store,
        [
            allowed(call_id="h", **MODEL, at=AT),
            used("h", cache="hit", saved=250, saved_tokens=14),
            used("s", cache="semantic-hit", saved=50, saved_tokens=6, charge=10),
            used("m", cache="miss", input_tokens=5, charge=300),
            used("n", input_tokens=9),
        ],
    )
    names = (
        "team", "requests", "hits", "semantic_hits", "saved_tokens", "saved_dollars", "dollars",
    )  # fmt: skip
    found = [part(each, *names) for each in await ask(store, "cache-savings")]
    assert found == [
        ("support", 1, 1, 0, 14, 0.00025, 0.0),
        ("", 2, 0, 1, 6, 0.00005, 0.00031),
    ]


async def test_cached_input_is_a_share_of_all_input(run_store: ClickHouse) -> None:
    first = (await ask(run_store, "cached-input"))[0]
    assert part(first, "key", "model", "input_tokens", "cached_tokens", "cached_share") == (
        "bot", "haiku", 900, 300, 0.333,
    )  # fmt: skip
    assert part(first, "provider", "saved_dollars") == ("claude", 0.00027)


async def test_tokens_are_summed_by_key(run_store: ClickHouse) -> None:
    names = ("key", "requests", "models", "input_tokens", "output_tokens", "reasoning_tokens")
    assert [part(each, *names) for each in await ask(run_store, "model-tokens")] == [
        ("bot", 2, 2, 950, 105, 40),
        ("other", 1, 1, 10, 0, 0),
    ]


async def test_text_of_a_provider_is_not_read_as_tokens(store: ClickHouse) -> None:
    text = 'x","input_tokens":9,"cut":true,"attempt":9,"\\'
    await add(store, [used("m1", alias=text, finish_reason=text, tool=text, input_tokens=3)])
    columns = "alias, finish_reason, model, input_tokens, cut, attempt"
    (row,) = await query(store, f"SELECT {columns} FROM model_requests")
    assert tuple(row.values()) == (text, text, text, 3, 0, 0)


async def test_a_model_request_is_not_context_that_toolbus_adds(store: ClickHouse) -> None:
    bodies: dict[str, Any] = {"arguments_bytes": 4000}
    await add(store, [allowed(at=AT, **MODEL, **bodies), allowed(at=AT, arguments_bytes=40)])
    (row,) = await ask(store, "context-by-key")
    assert part(row, "what", "requests", "spent_tokens") == ("arguments", 1, 10)


async def test_the_ledger_is_rebuilt_with_the_charges_of_models(
    run_store: ClickHouse, tmp_path: Path
) -> None:
    people = PersonKeys(tmp_path / "person.key")
    calls = ClickHouseCalls(run_store)
    spent = await spending(
        calls, people, SpendingQuery(customer="acme", start=AT, end=AT + 100, aliases=True)
    )
    assert {each[8] for each in spent.rows if each[7] == 500_000} == {"fast best"}
    assert {each[8] for each in spent.rows if each[3] == "docs"} == {""}
    assert {(each[3], each[4], each[7]) for each in spent.rows if each[7]} == {
        ("docs", "search", 2000),
        ("claude", "haiku", 500_000),
        ("claude", "haiku", 100),
    }
    query = OpenCallsQuery(customer="acme", start=AT, end=AT + 100, late=AT + 100)
    (open_call,) = (await open_calls(calls, people, query)).calls
    assert (open_call.call_id, open_call.charge) == ("open", 77)


async def test_a_request_of_executor_is_stored_and_counted_with_its_tokens(
    store: ClickHouse, gateway: ModelGateway, model: ModelProvider
) -> None:
    before = counted("input"), counted("output")
    async with gateway.executor(p=provider(model)):
        await gateway.call("1")
        await gateway.outcome("1")
        await gateway.event("1", ModelUsed.NAME)
    assert (counted("input"), counted("output")) == (before[0] + 10, before[1] + 4)
    published = [each for each in gateway.events if each.get("call_id") == "1"]
    rows, dead = read("tb.event", 1, b"\n".join(map(msgspec.json.encode, published)))
    assert dead == []
    await store.insert("events", rows, token(rows))
    (run,) = await ask(store, "cost-by-run", since="1d")
    assert part(run, "model_requests", "tool_calls", "called") == (1, 0, "p/m")
    assert part(run, "input_tokens", "output_tokens", "dollars") == (10, 4, 25e-6)


def counted(direction: str) -> float:
    """Return the tokens that executor has counted for the provider p."""
    labels = {"provider": "p", "api": "chat", "direction": direction}
    return REGISTRY.get_sample_value("toolbus_model_tokens_total", labels) or 0.0
