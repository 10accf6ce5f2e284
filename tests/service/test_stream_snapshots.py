"""Snapshots of streams with the operator's permissions, from one server to another."""

import io
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.engines.bus_reset import provisioned
from harness.engines.nats_server import NatsServer
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.snapshots.consumer_pause import paused
from toolbus_common.nats.snapshots.stream_snapshot import restore, streams_of, take
from toolbus_common.nats.stream_reader import created_at
from toolbus_common.nats.topology import CONFIG, EVENTS

STREAM = f"KV_{CONFIG}"
VALUES = [os.urandom(512 << 10) for _ in range(40)]  # NATS sends less without an acknowledgement


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path)
    made.start()
    yield made
    made.kill()


@asynccontextmanager
async def operator(server: NatsServer) -> AsyncIterator[Bus]:
    seed = (server.seeds / f"{OPERATOR}.seed").read_text().strip()
    bus = Bus(OPERATOR, server.url, seed)
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


async def test_a_restored_stream_has_its_messages_its_consumers_and_its_identity(
    server: NatsServer, tmp_path: Path
) -> None:
    await provisioned(server)
    files: dict[str, io.BytesIO] = {STREAM: io.BytesIO(), EVENTS: io.BytesIO()}
    async with operator(server) as bus:
        bucket = await bus.bucket(CONFIG)
        for number, value in enumerate(VALUES):
            await bucket.put(f"key.k{number}", value)
        assert {STREAM, EVENTS} <= set(await streams_of(bus))
        about = {name: await take(bus, name, file) for name, file in files.items()}
        identity = await created_at(bus.client, EVENTS)
    assert files[STREAM].tell() > 16 << 20
    (tmp_path / "other").mkdir()
    other = NatsServer(tmp_path / "other")
    other.start()
    try:
        async with operator(other) as bus:
            for name, file in files.items():
                await restore(bus, about[name], iter([file.getvalue()]))
            bucket = await bus.bucket(CONFIG)
            for number, value in enumerate(VALUES):
                entry = await bucket.get(f"key.k{number}")
                assert entry is not None
                assert entry.value == value
            assert await created_at(bus.client, EVENTS) == identity
            assert await bus.finished(EVENTS, "audit") > 0
            with pytest.raises(BusDownError, match="cannot copy or restore"):
                await restore(bus, about[STREAM], iter([files[STREAM].getvalue()]))
    finally:
        other.kill()


async def test_a_stream_that_does_not_exist_is_named(server: NatsServer) -> None:
    async with operator(server) as bus:
        with pytest.raises(BusDownError, match="'NOTHING'"):
            await take(bus, "NOTHING", io.BytesIO())


async def test_a_paused_consumer_receives_nothing_until_the_pause_ends(
    server: NatsServer,
) -> None:
    await provisioned(server)
    async with operator(server) as bus:
        async with paused(bus, EVENTS, "audit", 10.0):
            info = await bus.client.jetstream().consumer_info(EVENTS, "audit")
            assert info.paused
        info = await bus.client.jetstream().consumer_info(EVENTS, "audit")
        assert not info.paused
        with pytest.raises(BusDownError, match="cannot be paused"):
            async with paused(bus, EVENTS, "nothing", 1.0):
                pass
