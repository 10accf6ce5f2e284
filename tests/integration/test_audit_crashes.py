"""Audit and its store in separate processes, killed at every moment: no event lost or copied."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from harness.audit.events import PATIENCE, allowed, consumed, events_of, returns_soon
from harness.engines.clickhouse_server import ClickHouseServer
from harness.services.audit_process import AUDIT, audit_process
from harness.waits import until_async
from toolbus_audit.main import build
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.contracts import AuditQuery, EventsQuery, EventsReply, RowsReply
from toolbus_common.errors import InvalidError, UnavailableError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings

# The process kills itself after its first insert and before it acknowledges.
AUDIT_DIES = (
    """
import os, signal
from toolbus_audit.clickhouse.store import ClickHouse
whole = ClickHouse.insert
async def insert(self, *given):
    await whole(self, *given)
    os.kill(os.getpid(), signal.SIGKILL)
ClickHouse.insert = insert
"""
    + AUDIT
)


@pytest.fixture
def own_clickhouse(tmp_path: Path) -> Iterator[ClickHouseServer]:
    """Run a ClickHouse of this test's own, to kill and start again."""
    with ClickHouseServer(tmp_path / "own-clickhouse").running() as server:
        yield server


@pytest.fixture
def audit_settings(settings: Settings, tmp_path: Path) -> Iterator[AuditSettings]:
    """Return audit settings for `TOOLBUS_TEST_CLICKHOUSE_URL`, or for the shim."""
    if given := os.environ.get("TOOLBUS_TEST_CLICKHOUSE_URL"):
        yield at_server(settings, given, f"test_{secrets.token_hex(6)}")
        return
    with ClickHouseServer(tmp_path / "clickhouse").running() as server:
        yield at_server(settings, server.url)


def at_server(settings: Settings, url: str, database: str = "toolbus") -> AuditSettings:
    return AuditSettings(
        state_dir=settings.state_dir,
        nats_url=settings.nats_url,
        drain_seconds=5.0,
        clickhouse_url=SecretStr(url),
        clickhouse_database=database,
    )


async def ready(service: Service) -> bool:
    return service.status().ready


async def request(operator: Bus, sql: str) -> tuple[tuple[Any, ...], ...]:
    requests = RequestReply("operator", operator)
    return (await requests.request(AuditQuery(sql=sql), RowsReply, 20.0)).rows


async def answered(operator: Bus) -> bool:
    try:
        return await request(operator, "SELECT 1") == ((1,),)
    except UnavailableError:
        return False


async def stored_once(operator: Bus, expected: int) -> None:
    """Check that every event is stored exactly once, counted without FINAL."""
    await until_async(lambda: answered(operator), "audit answers")
    await until_async(lambda: consumed(operator), "everything is acknowledged")
    found = await request(operator, "SELECT count(), uniqExact(id), uniqExact(seq) FROM events")
    assert found == ((expected, expected, expected),)


@asynccontextmanager
async def publishing(writer: EventPublisher) -> AsyncIterator[list[str]]:
    """Publish events without pause, in small messages, until the block ends; yield their ids."""
    messages: list[str] = []

    async def say() -> None:
        while True:
            events = [allowed() for _ in range(3)]
            await asyncio.gather(*map(writer.publish_durable, events))
            messages.extend(event.id for event in events)

    task = asyncio.create_task(say())
    yield messages
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await writer.close(10.0)


async def test_a_kill_between_insert_and_acknowledgement_copies_nothing(
    settings: Settings, operator: Bus, tmp_path: Path
) -> None:
    await returns_soon(operator)
    async with events_of("policy", settings, tmp_path) as policy:
        await asyncio.gather(*(policy.publish_durable(allowed()) for _ in range(500)))
    with audit_process(settings, tmp_path / "log", AUDIT_DIES) as dying:
        assert await asyncio.to_thread(dying.wait, PATIENCE) == -9
    info = await operator.client.jetstream().consumer_info("EVENTS", "audit")
    assert info.num_ack_pending + info.num_pending > 0
    with audit_process(settings, tmp_path / "log"):
        await stored_once(operator, 500)


async def test_a_writer_killed_repeatedly_under_load_loses_and_copies_nothing(
    settings: Settings, operator: Bus, tmp_path: Path
) -> None:
    await returns_soon(operator)
    async with events_of("policy", settings, tmp_path) as policy, publishing(policy) as message:
        for _ in range(4):
            with audit_process(settings, tmp_path / "log"):
                await until_async(lambda: answered(operator), "audit answers")
                before = (await request(operator, "SELECT count() FROM events"))[0][0]

                async def progressed(before: int = before) -> bool:
                    return bool(
                        (await request(operator, "SELECT count() FROM events"))[0][0] > before
                    )

                await until_async(progressed, "events are written")
    with audit_process(settings, tmp_path / "log") as process:
        await until_async(lambda: answered(operator), "audit answers")
        await until_async(lambda: consumed(operator), "everything is acknowledged")
        ((rows, ids),) = await request(operator, "SELECT count(), uniqExact(id) FROM events")
        assert rows == ids
        assert rows >= len(message) > 0
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0


async def test_during_an_outage_of_clickhouse_events_wait_and_the_status_says_why(
    settings: Settings, operator: Bus, tmp_path: Path, own_clickhouse: ClickHouseServer
) -> None:
    await returns_soon(operator)
    async with (
        events_of("policy", settings, tmp_path) as policy,
        build(ProcessContext(), at_server(settings, own_clickhouse.url)).running() as service,
    ):
        await until_async(lambda: ready(service), "audit is ready")
        await asyncio.gather(*(policy.publish_durable(allowed()) for _ in range(10)))
        await stored_once(operator, 10)
        own_clickhouse.kill()
        await asyncio.gather(*(policy.publish_durable(allowed()) for _ in range(10)))

        async def says_why() -> bool:
            return "cannot be reached" in service.status().reason

        await until_async(says_why, "the status says why")
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await request(operator, "SELECT 1")
        own_clickhouse.start()
        await stored_once(operator, 20)
        await until_async(lambda: ready(service), "audit is ready again")


async def test_a_store_killed_under_load_has_every_event_once(
    settings: Settings, operator: Bus, tmp_path: Path, own_clickhouse: ClickHouseServer
) -> None:
    await returns_soon(operator)
    async with (
        events_of("policy", settings, tmp_path) as policy,
        build(ProcessContext(), at_server(settings, own_clickhouse.url)).running() as service,
    ):
        await until_async(lambda: ready(service), "audit is ready")
        async with publishing(policy) as message:
            for _ in range(3):
                before = len(message)

                async def more(before: int = before) -> bool:
                    return len(message) > before + 200 and service.status().ready

                await until_async(more, "events are written")
                own_clickhouse.kill()
                own_clickhouse.start()
        await until_async(lambda: answered(operator), "audit answers")
        await until_async(lambda: consumed(operator), "everything is acknowledged")
        ((rows, ids),) = await request(operator, "SELECT count(), uniqExact(id) FROM events")
        assert rows == ids
        assert rows >= len(message)


async def test_two_replicas_on_one_server_share_the_events(
    settings: Settings, operator: Bus, tmp_path: Path, audit_settings: AuditSettings
) -> None:
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(build(ProcessContext(), audit_settings).running())
            for _ in range(2)
        ]
        await until_async(lambda: ready(services[0]), "the first is ready")
        await until_async(lambda: ready(services[1]), "the second is ready")
        policy = await stack.enter_async_context(events_of("policy", settings, tmp_path))
        async with publishing(policy) as message:

            async def shared() -> bool:
                return all(service.status().details["rows"] > 50 for service in services)

            await until_async(shared, "both have written")
        await until_async(lambda: consumed(operator), "everything is acknowledged")
        ((rows, ids),) = await request(operator, "SELECT count(), uniqExact(id) FROM events")
        assert rows == ids >= len(message)
        assert rows == sum(service.status().details["rows"] for service in services)


async def test_a_clickhouse_server_is_queried_read_only(
    operator: Bus, audit_settings: AuditSettings, tmp_path: Path
) -> None:
    async with build(ProcessContext(), audit_settings).running() as service:
        await until_async(lambda: ready(service), "audit is ready")
        assert await request(operator, "SELECT count(), 'it''s' FROM events") == ((0, "it's"),)
        for sql in (
            "DROP TABLE events",
            "SELECT 1 SETTINGS readonly = 0",
            f"SELECT 1 INTO OUTFILE '{tmp_path / 'out'}'",
            "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString', 'a String')",
            "SELECT file('/etc/hostname')",
            "SELECT 1; SELECT 2",
        ):
            with pytest.raises(InvalidError):
                pytest.fail(f"{sql!r} gave {await request(operator, sql)!r}")
        assert not (tmp_path / "out").exists()


async def test_events_are_exported_from_a_clickhouse_server(
    settings: Settings, operator: Bus, audit_settings: AuditSettings, tmp_path: Path
) -> None:
    async with (
        build(ProcessContext(), audit_settings).running() as service,
        events_of("policy", settings, tmp_path) as policy,
    ):
        await until_async(lambda: ready(service), "audit is ready")
        await policy.publish_durable(allowed(call_id="c1", customer="it's"))
        await policy.publish_durable(allowed(call_id="c2"))
        await until_async(lambda: consumed(operator), "both are stored")
        requests = RequestReply("operator", operator)
        query = EventsQuery(customers=("it's",), events=("call.*",))
        lines = await requests.request(query, EventsReply, 20.0)
        assert (lines.rows, lines.data.count(b"c1.allowed"), b"c2.allowed" in lines.data) == (
            1,
            1,
            False,
        )
        file = await requests.request(
            query.model_copy(update={"format": "parquet"}), EventsReply, 20.0
        )
        assert (file.rows, file.data[:4]) == (1, b"PAR1")
