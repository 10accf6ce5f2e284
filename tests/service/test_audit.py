"""Audit on a real bus and a real ClickHouse engine: every event is stored exactly once."""

import asyncio
import http.client
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.audit.events import (
    PATIENCE,
    allowed,
    bus_of,
    completed,
    consumed,
    events_of,
    pulling,
)
from harness.engines.engine import own_port
from harness.engines.migrated_tables import migrated
from harness.waits import until_async
from toolbus_audit.clickhouse.migrate import migrations
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.main import build
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.config import Configuration, Reader
from toolbus_common.config_store.drafts import hashed
from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.errors import InvalidError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.topology import CONFIG, CONFIGURATION
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings


def audit_settings(settings: Settings) -> AuditSettings:
    return AuditSettings(
        state_dir=migrated(settings.state_dir), nats_url=settings.nats_url, drain_seconds=5.0
    )


@pytest.fixture
async def audit(settings: Settings) -> AsyncIterator[Service]:
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await until_async(lambda: ready(service), "audit is ready")
        yield service


async def ready(service: Service) -> bool:
    return service.status().ready


async def counted(service: Service, what: str, expected: int) -> bool:
    return bool(service.status().details[what] == expected)


async def rows(operator: Bus, sql: str, limit: int = 1000) -> tuple[tuple[Any, ...], ...]:
    requests = RequestReply("operator", operator)
    return (await requests.request(AuditQuery(sql=sql, limit=limit), RowsReply, PATIENCE)).rows


async def count(operator: Bus, expected: int, table: str = "events") -> None:
    async def look() -> bool:
        return bool((await rows(operator, f"SELECT count() FROM {table}"))[0][0] >= expected)

    await until_async(look, f"{expected} rows in {table}")
    assert await rows(operator, f"SELECT count() FROM {table}") == ((expected,),)


async def test_an_event_becomes_a_row_with_typed_columns(
    audit: Service, operator: Bus, settings: Settings, tmp_path: Path
) -> None:
    async with events_of("policy", settings, tmp_path) as policy:
        event = allowed(trace_id="ab" * 16, parent_id="outer", at=1_763_708_342.123456)
        await policy.publish_durable(event)
        await count(operator, 1)
    found = await rows(
        operator,
        "SELECT event, id, toString(at), producer, seq, stream_seq, line, customer, team, key,"
        " call_id,"
        " parent_id, trace_id, server, tool, charge, sent,"
        " JSONExtractString(detail, 'id') FROM events",
    )
    assert found == (
        (
            "call.allowed",
            event.id,
            "2025-11-21 06:59:02.123456",
            policy.producer,
            *(1, 1, 0),
            *("acme", "support", "bot", event.call_id, "outer", "ab" * 16, "docs", "search"),
            *(2000, False, event.id),
        ),
    )
    await until_async(lambda: counted(audit, "rows", 1), "its count, after the table has it")


async def test_many_events_of_one_message_each_become_a_row(
    audit: Service, operator: Bus, settings: Settings, tmp_path: Path
) -> None:
    assert audit.ready
    async with events_of("executor", settings, tmp_path) as executor:
        await asyncio.gather(*(executor.publish_durable(completed()) for _ in range(300)))
        await count(operator, 300)
    assert await rows(operator, "SELECT uniqExact(id), min(sent), max(seq) FROM events") == (
        (300, True, 300),
    )


async def test_a_message_delivered_ten_times_is_stored_once(
    operator: Bus, settings: Settings, tmp_path: Path
) -> None:
    async with events_of("policy", settings, tmp_path) as policy:
        await asyncio.gather(*(policy.publish_durable(allowed()) for _ in range(50)))
    store = ClickHouse(audit_settings(settings))
    await store.open()
    async with bus_of("audit", settings) as bus:
        for _ in range(10):
            await stored_but_not_acknowledged(bus, store)
    await store.close()
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await until_async(lambda: ready(service), "audit is ready")
        await until_async(lambda: consumed(operator), "everything is acknowledged")
        await count(operator, 50)
        assert await rows(operator, "SELECT uniqExact(id) FROM events") == ((50,),)


async def stored_but_not_acknowledged(bus: Bus, store: ClickHouse) -> None:
    """Store rows as a writer that dies between insert and acknowledgement."""
    from toolbus_audit.ingest.writer import Writer  # noqa: PLC0415

    writer = Writer(store)
    await writer.open()
    async with pulling(bus, "audit") as pull:
        while not (messages := await pull(500, 1.0)):
            pass
        await writer._store_rows(messages, asyncio.get_running_loop().time() + 10)
        for message in messages:
            await message.again(0)


async def test_an_unreadable_line_becomes_a_dead_letter_and_the_rest_is_stored(
    audit: Service, operator: Bus, settings: Settings
) -> None:
    good = (
        b'{"event":"call.allowed","producer":"p","seq":1,"id":"%b","at":1763708342,"customer":"a"}'
    )
    lines = [good % b"one", b"{not json", b'{"event":"x"}', b"\xff", b"", good % b"two"]
    async with bus_of("policy", settings) as bus:
        await bus.store(Envelope("tb.event.call.allowed.a", "m1", b"\n".join(lines)))
        await bus.store(Envelope("tb.event.call.allowed.a", "m2", good % b"three"))
    await count(operator, 3)
    await count(operator, 4, "dead_letters")
    found = await rows(
        operator, "SELECT stream_seq, line, subject, raw FROM dead_letters ORDER BY line"
    )
    assert found == tuple(
        (1, line, "tb.event.call.allowed.a", raw)
        for line, raw in ((1, "{not json"), (2, '{"event":"x"}'), (3, "\ufffd"), (4, ""))
    )
    await until_async(
        lambda: counted(audit, "dead_letters", 4), "their count, after the table has them"
    )


async def test_a_value_the_store_cannot_hold_becomes_a_dead_letter_alone(
    settings: Settings, tmp_path: Path, operator: Bus
) -> None:
    store = ClickHouse(audit_settings(settings))
    await store.open()
    store._connected().command("ALTER TABLE events MODIFY COLUMN team FixedString(8)")
    await store.close()
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await until_async(lambda: ready(service), "audit is ready")
        async with events_of("policy", settings, tmp_path) as policy:
            teams = ("red", "blue", "far too long", "green", "black")
            await asyncio.gather(*(policy.publish_durable(allowed(team=team)) for team in teams))
        await count(operator, 4)
        await count(operator, 1, "dead_letters")
        found = await rows(
            operator, "SELECT line, JSONExtractString(raw, 'team') FROM dead_letters"
        )
        assert found == ((2, "far too long"),)


async def test_a_second_audit_on_the_same_directory_waits_and_takes_over(
    settings: Settings, operator: Bus, tmp_path: Path
) -> None:
    first = build(ProcessContext(), audit_settings(settings))
    async with build(ProcessContext(), audit_settings(settings)).running() as second:
        await until_async(lambda: ready(second), "the second is ready")
        async with first.running():
            await until_async(lambda: is_waiting(first), "the first stands by")
            async with events_of("policy", settings, tmp_path) as policy:
                await asyncio.gather(*(policy.publish_durable(allowed()) for _ in range(20)))
            await count(operator, 20)
            assert (await rows(operator, "SELECT 1")) == ((1,),)


async def is_waiting(service: Service) -> bool:
    return "this one waits" in service.status().reason


async def test_an_invalid_query_is_rejected_with_clickhouses_reason(
    audit: Service, operator: Bus
) -> None:
    assert audit.ready
    with pytest.raises(InvalidError, match="nonsense") as caught:
        await rows(operator, "SELECT nonsense FROM events")
    assert "DB::" not in caught.value.reason
    assert "version" not in caught.value.reason


async def test_a_reply_is_truncated_at_its_limit_and_marked(audit: Service, operator: Bus) -> None:
    assert audit.ready
    requests = RequestReply("operator", operator)
    query = AuditQuery(sql="SELECT number n FROM numbers(100)", limit=7)
    reply = await requests.request(query, RowsReply, PATIENCE)
    assert reply.columns == ("n",)
    assert reply.rows == tuple((n,) for n in range(7))
    assert reply.more


async def test_configured_readers_are_answered_over_http_until_they_are_removed(
    operator: Bus, settings: Settings
) -> None:
    port, secret = own_port(), "a-secret-of-a-reader-0123"
    result = audit_settings(settings).model_copy(update={"audit_http_port": port})
    bucket = await operator.bucket(CONFIG)

    def request() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            keys = {"X-ClickHouse-User": "ann", "X-ClickHouse-Key": secret}
            connection.request("POST", "/", "SELECT count() FROM events", keys)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    async def refused() -> bool:
        return (await asyncio.to_thread(request))[0] == 403

    async def answered() -> bool:
        return await asyncio.to_thread(request) == (200, b"0\n")

    async with build(ProcessContext(), result).running() as service:
        await until_async(lambda: ready(service), "audit is ready")
        assert await refused()
        ann = Reader(customers=("acme",), secret_hash=hashed(secret))
        declared = Configuration(readers={"ann": ann})
        await bucket.put(CONFIGURATION, declared.model_dump_json().encode())
        await until_async(answered, "ann is answered")
        await bucket.put(CONFIGURATION, Configuration().model_dump_json().encode())
        await until_async(refused, "ann is refused")


REFUSED = (
    "INSERT INTO events (id) VALUES ('x')",
    "DROP TABLE events",
    "ALTER TABLE events DELETE WHERE 1",
    "TRUNCATE TABLE events",
    "SELECT * FROM file('/etc/hostname', 'LineAsString', 'a String')",
    "SELECT file('/etc/hostname')",
    "SELECT `file`('/etc/hostname')",
    "SELECT FILE('/etc/hostname')",
    "SELECT 1 AS `a'b`, file('/etc/hostname') AS `c'd`",
    "SELECT 1 AS `a'b` INTO OUTFILE '{out}'",
    "SELECT arrayMap(x -> file(x), ['/etc/hostname'])",
    "WITH (SELECT file('/etc/hostname')) AS x SELECT x",
    "EXPLAIN SELECT file('/etc/hostname')",
    "DESCRIBE TABLE file('/etc/hostname')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString', 'a String')",
    "SELECT * FROM executable('id', 'LineAsString', 'a String')",
    "SELECT * FROM remote('127.0.0.1:1', 'system.one')",
    "SELECT * FROM s3('http://127.0.0.1:1/b/k', 'CSV', 'a String')",
    "SELECT * FROM sqlite('{out}', 't')",
    "EXPLAIN SELECT * FROM sqlite('{out}', 't')",
    "SELECT * FROM icebergLocal('/etc')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM python(x)",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SET readonly = 0",
    "SELECT 1; SET readonly = 0; DROP TABLE events",
    "SELECT 1; SELECT 2",
    "SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 INTO /* */ OUTFILE '{out}' FORMAT CSV",
    "EXPLAIN AST SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 FORMAT CSV",
    "INSERT INTO FUNCTION file('{out}', 'CSV', 'a Int64') SELECT 1",
    "SYSTEM STOP MERGES",
    "KILL QUERY WHERE 1",
    "SELECT 1 PARALLEL WITH DROP TABLE events",
    "BACKUP TABLE events TO File('{out}')",
    "",
)


async def test_a_query_can_only_read_and_only_the_tables(
    audit: Service, operator: Bus, tmp_path: Path
) -> None:
    assert audit.ready
    out = tmp_path / "out.csv"
    for sql in REFUSED:
        with pytest.raises(InvalidError):
            pytest.fail(f"{sql!r} gave {await rows(operator, sql.format(out=out))!r}")
    assert not out.exists()
    assert await rows(operator, "SELECT count() FROM events") == ((0,),)
    for sql in (
        "SHOW TABLES",
        "DESCRIBE events",
        "EXPLAIN SELECT 1",
        "WITH 1 AS x SELECT x -- end",
    ):
        assert await rows(operator, sql)
    assert await rows(operator, "SELECT 'INTO OUTFILE' AS `file(`;") == (("INTO OUTFILE",),)


async def test_migrations_are_applied_once_and_recorded(settings: Settings) -> None:
    settings.state_dir.joinpath("clickhouse").mkdir()  # empty: this test runs the migrations
    for _ in range(2):
        store = ClickHouse(audit_settings(settings))
        await store.open()
        assert await store._in_write_thread(
            store._rows, "SELECT version, name FROM migrations ORDER BY version"
        ) == [(each.version, each.name) for each in migrations()]
        await store.close()
