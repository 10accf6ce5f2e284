"""Backfill: lost rows are restored from the stream once, and dead letters are read again."""

import asyncio
from pathlib import Path
from time import time
from typing import Any

import pytest

from harness.audit.events import Pull, allowed, bus_of, consumed, events_of, pulling
from harness.engines.migrated_tables import migrated
from harness.waits import until_async
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.main import build
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.contracts import (
    AuditQuery,
    BackfillLinesRequest,
    BackfillReply,
    BackfillRequest,
    RowsReply,
)
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings

SUBJECT = "tb.event.call.allowed.acme"
GOOD = (
    b'{"event":"call.allowed","producer":"p","seq":1,"id":"%b","at":1763708342.5,"customer":"acme",'
    b'"team":"%b"}'
)


def audit_settings(settings: Settings) -> AuditSettings:
    return AuditSettings(
        state_dir=migrated(settings.state_dir), nats_url=settings.nats_url, drain_seconds=5.0
    )


async def changed(settings: Settings, *statements: str) -> None:
    """Change the tables while no audit runs."""
    store = ClickHouse(audit_settings(settings))
    await store.open()
    try:
        for statement in statements:
            store._connected().command(statement)
    finally:
        await store.close()


@pytest.fixture
async def stored(settings: Settings, operator: Bus, tmp_path: Path) -> list[str]:
    """Store forty events in the stream and in the table; audit has ended."""
    async with events_of("policy", settings, tmp_path) as policy:
        events = [allowed() for _ in range(40)]
        for some in (events[:10], events[10:25], events[25:]):
            await asyncio.gather(*map(policy.publish_durable, some))
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await settled(service, operator)
    return [event.id for event in events]


async def settled(service: Service, operator: Bus) -> None:
    async def ready() -> bool:
        return service.status().ready

    await until_async(ready, "audit is ready")
    await until_async(lambda: consumed(operator), "everything is acknowledged")


async def refill(operator: Bus, **parameters: Any) -> BackfillReply:
    return await RequestReply("operator", operator).request(
        BackfillRequest(**parameters), BackfillReply, 60.0
    )


async def rows(operator: Bus, sql: str) -> tuple[tuple[Any, ...], ...]:
    requests = RequestReply("operator", operator)
    return (await requests.request(AuditQuery(sql=sql), RowsReply, 20.0)).rows


async def test_lost_rows_are_restored_from_the_stream_and_no_others(
    settings: Settings, operator: Bus, stored: list[str]
) -> None:
    lost = ", ".join(f"'{each}'" for each in stored[::3])
    lose = f"ALTER TABLE events DELETE WHERE id IN ({lost}) SETTINGS mutations_sync = 2"
    await changed(settings, lose)
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await settled(service, operator)
        result = await refill(operator)
        assert (result.lines, result.written, result.unreadable) == (40, 14, 0)
        assert await rows(operator, "SELECT count(), uniqExact(id) FROM events") == ((40, 40),)
        again = await refill(operator)
        assert (again.lines, again.written) == (40, 0)
        assert (await refill(operator, first=again.next)).next == 0


async def test_a_backfill_from_a_time_starts_with_the_first_message_at_or_after_it(
    settings: Settings, operator: Bus, stored: list[str]
) -> None:
    message = await operator.client.jetstream().get_msg("EVENTS", 2)
    assert message.time is not None
    assert len(stored) == 40
    await changed(settings, "TRUNCATE TABLE events")
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await settled(service, operator)
        result = await refill(operator, since=message.time.timestamp())
        assert (result.lines, result.written) == (30, 30)
        assert (await refill(operator, since=message.time.timestamp() + 3600)).lines == 0


async def test_messages_that_audit_has_not_acknowledged_are_skipped(
    settings: Settings, operator: Bus, tmp_path: Path
) -> None:
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await settled(service, operator)
        async with (
            bus_of("audit", settings) as other,
            pulling(other, "audit") as pull,
            events_of("policy", settings, tmp_path) as policy,
        ):
            publishing = asyncio.gather(*(policy.publish_durable(allowed()) for _ in range(3)))
            held = await unacknowledged(pull, policy.publish_durable, publishing)
            result = await refill(operator)
            assert result.until < held
            counted = f"SELECT count() FROM events WHERE stream_seq = {held}"
            assert await rows(operator, counted) == ((0,),)


async def unacknowledged(pull: Pull, record: Any, publishing: Any) -> int:
    """Return the number of a message that was delivered and is not acknowledged."""
    await publishing
    pulling = asyncio.ensure_future(pull(1, 30.0))
    while not pulling.done():
        await record(allowed())
        await asyncio.sleep(0.01)
    (message,) = await pulling
    number: int = message.sequence
    return number


async def test_readable_dead_letters_become_rows_and_leave_the_table(
    settings: Settings, operator: Bus
) -> None:
    await changed(settings, "ALTER TABLE events MODIFY COLUMN team FixedString(8)")
    async with bus_of("policy", settings) as bus:
        names = ((b"one", b"red"), (b"two", b"far too long"), (b"three", b"also too long"))
        lines = [GOOD % each for each in names]
        lines.insert(2, b"{not json")
        await bus.store(Envelope(SUBJECT, "m1", b"\n".join(lines)))
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await settled(service, operator)
        assert service.status().details["dead_letters"] == 3
        still = await refill(operator, dead=True)
        assert (still.written, still.unreadable) == (0, 3)
        assert await rows(operator, "SELECT count() FROM dead_letters") == ((3,),)
    await changed(settings, "ALTER TABLE events MODIFY COLUMN team String")
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await settled(service, operator)
        assert service.status().details["dead_letters"] == 3
        result = await refill(operator, dead=True)
        assert (result.written, result.unreadable, result.next) == (2, 1, 0)
        assert service.status().details["dead_letters"] == 1
        remaining = await rows(operator, "SELECT stream_seq, line, raw FROM dead_letters")
        assert remaining == ((1, 2, "{not json"),)
        assert await rows(operator, "SELECT line FROM events ORDER BY line") == ((0,), (1,), (3,))


async def test_a_dead_letter_with_an_existing_row_only_leaves_the_table(
    settings: Settings, operator: Bus, stored: list[str]
) -> None:
    assert stored
    await changed(
        settings,
        "INSERT INTO dead_letters SELECT now64(), stream_seq, line, '', 'Once.', detail, 'abc'"
        " FROM events WHERE stream_seq = 2 AND line < 3",
    )
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await settled(service, operator)
        result = await refill(operator, dead=True)
        assert (result.written, result.unreadable) == (0, 0)
        assert await rows(operator, "SELECT count() FROM dead_letters") == ((0,),)
        assert await rows(operator, "SELECT count(), uniqExact(id) FROM events") == ((40, 40),)


async def test_events_of_an_export_are_written_once_and_recent_ones_not(
    settings: Settings, operator: Bus, stored: list[str]
) -> None:
    lines = [(GOOD % (b"it's \\\\ %d" % number, b"red")).decode() for number in range(4)]
    young = f'{{"event":"f","producer":"p","seq":1,"id":"young","at":{time()},"customer":"acme"}}'
    requests = RequestReply("operator", operator)
    async with build(ProcessContext(), audit_settings(settings)).running() as service:
        await settled(service, operator)
        for written in (4, 0):
            request = BackfillLinesRequest(lines=(*lines, lines[0], young, "{not json"))
            reply = await requests.request(request, BackfillReply, 60.0)
            assert (reply.lines, reply.written, reply.unreadable) == (7, written, 1)
        assert await rows(operator, "SELECT count(), uniqExact(id) FROM events") == ((44, 44),)
        found = await rows(
            operator, "SELECT id FROM events WHERE stream_seq = 0 ORDER BY id LIMIT 1"
        )
        assert found == (("it's \\ 0",),)
    assert stored
