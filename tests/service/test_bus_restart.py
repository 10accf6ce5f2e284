"""A NATS server killed and started again on the same store: no message lost or doubled."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from harness.engines.bus_reset import connect_as_tester, provisioned
from harness.engines.nats_server import NatsAt, NatsServer
from harness.network.tcp_servers import closed_after, served
from harness.services.call_chain import running
from harness.waits import until, until_async
from toolbus_common.contracts import CallAllowed, CallCompleted
from toolbus_common.errors import BusDownError
from toolbus_common.messaging.broker import EventBatch
from toolbus_common.nats import connection
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import BUCKETS, CATALOGUE, CONFIG, DURABLES, EVENTS, LEASES
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings


@pytest.fixture
async def own_settings(state_dir: Path, own_nats: NatsServer) -> Settings:
    """Return settings for a provisioned server that may be killed."""
    await provisioned(own_nats)
    settings = Settings(state_dir=state_dir, nats_url=own_nats.url, drain_seconds=5.0)
    own_nats.copy_seeds(settings.state_dir)
    return settings


@pytest.fixture
async def tester(own_settings: Settings, own_nats: NatsServer) -> AsyncIterator[Bus]:
    assert own_settings.nats_url == own_nats.url
    async with connect_as_tester(own_nats.at) as bus:
        yield bus


def allowed(call: int) -> CallAllowed:
    return CallAllowed(
        id=f"c{call}.allowed", at=1.0, customer="acme", call_id=f"c{call}", server="git", tool="log"
    )


async def lines(bus: Bus) -> list[dict[str, object]]:
    """Return every event in the stream."""
    stream = bus.client.jetstream()
    last = (await stream.stream_info(EVENTS)).state.last_seq
    messages = [await stream.get_msg(EVENTS, seq) for seq in range(1, last + 1)]
    return [json.loads(line) for message in messages for line in (message.data or b"").split(b"\n")]


class Confused:
    """A proxy to a NATS server; while `confused` it accepts connections and sends nonsense."""

    def __init__(self, port: int) -> None:
        self.confused = False
        self.accepted = self.open = 0  # counted while it was confused
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Yield the URL of the proxy."""
        async with served(self._meet) as port:
            yield f"nats://127.0.0.1:{port}"

    def break_off(self) -> None:
        """Close every connection through the proxy."""
        while self._writers:
            self._writers.pop().close()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self.confused:
            await self._talk_nonsense(reader, writer)
            return
        there, here = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(here)
        async with closed_after(here):
            await asyncio.gather(_copied(reader, here), _copied(there, writer))

    async def _talk_nonsense(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.accepted += 1
        self.open += 1
        writer.write(b"NONSENSE\r\n")
        try:
            await reader.read()
        finally:
            self.open -= 1


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
    writer.close()


async def test_connections_without_a_valid_server_are_closed(
    own_settings: Settings, own_nats: NatsServer
) -> None:
    proxy = Confused(int(own_settings.nats_url.rpartition(":")[2]))
    async with proxy.listening() as url, connect_as_tester(NatsAt(url, own_nats.seeds)) as bus:
        proxy.confused = True
        proxy.break_off()
        await until(lambda: proxy.accepted >= 3, "it retried")
        proxy.confused = False
        await until(lambda: bus.connected, "it reconnected")
        await until(lambda: proxy.open == 0, "it closed the other connections")


async def test_every_event_published_across_a_restart_is_in_the_stream_exactly_once(
    own_settings: Settings, own_nats: NatsServer, tester: Bus
) -> None:
    policy = Service("policy", own_settings)
    async with running(policy):
        for n in range(50):
            policy.events.publish(allowed(n))
            await asyncio.sleep(0)
        own_nats.kill()
        for n in range(50, 100):
            policy.events.publish(allowed(n))
            await asyncio.sleep(0)
        await until(lambda: not (policy.bus.connected or tester.connected), "both are disconnected")
        with pytest.raises(BusDownError):
            await policy.events.publish_durable(allowed(100))
        own_nats.start()
        await until(lambda: tester.connected, "the tester is back")

        async def all_there() -> bool:
            return len({line["id"] for line in await lines(tester)}) == 101

        await until_async(all_there, "every event is in the stream")
        await policy.events.publish_durable(allowed(101))
    result = await lines(tester)
    assert sorted(str(line["id"]) for line in result) == sorted(f"c{n}.allowed" for n in range(102))
    assert sorted(int(str(line["seq"])) for line in result) == list(range(1, 103))


async def test_an_error_distinguishes_a_late_acknowledgement_from_a_lost_connection(
    tester: Bus, own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = Envelope("tb.event.call.allowed.acme", "late", allowed(1).encode())
    own_nats.freeze()
    with monkeypatch.context() as patch:
        patch.setattr(connection, "ACK_SECONDS", 0.05)
        patch.setattr(connection, "RESEND_SECONDS", 0.05)
        with pytest.raises(BusDownError) as late:
            await tester.store(message)
    waiting = asyncio.create_task(tester.store(message))
    await until(lambda: tester._acks)
    own_nats.kill()
    with pytest.raises(BusDownError) as lost:
        await waiting
    assert isinstance(late.value.__cause__, TimeoutError)
    assert isinstance(lost.value.__cause__, ConnectionError)


async def test_a_message_without_an_acknowledgement_is_sent_again_and_stored_once(
    tester: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lose the acknowledgement of the first copy, as a leader that resigns does."""
    message = Envelope("tb.event.call.allowed.acme", "again", allowed(1).encode())
    lost: list[Msg] = []
    receive = tester._acknowledged

    async def lose_the_first(answer: Msg) -> None:
        if lost:
            await receive(answer)
        lost.append(answer)

    monkeypatch.setattr(connection, "RESEND_SECONDS", 0.05)
    inbox = tester.client.new_inbox()
    await tester.client.subscribe(f"{inbox}.*", cb=lose_the_first)
    monkeypatch.setattr(tester, "_ack_prefix", inbox)
    await tester.store(message)
    assert len(lost) > 1
    assert [line["id"] for line in await lines(tester)] == ["c1.allowed"]


async def test_the_outbox_of_a_killed_service_is_published_by_the_next_one(
    own_settings: Settings, own_nats: NatsServer, tester: Bus
) -> None:
    policy = Service("policy", own_settings)
    async with running(policy):
        own_nats.kill()
        await until(lambda: not (policy.bus.connected or tester.connected), "both are disconnected")
        with pytest.raises(BusDownError):
            await policy.events.publish_durable(allowed(1))
    own_nats.start()
    await until(lambda: tester.connected, "the tester is back")
    async with running(Service("policy", own_settings)):

        async def there() -> bool:
            return [line["id"] for line in await lines(tester)] == ["c1.allowed"]

        await until_async(there, "the spooled event is in the stream")


async def test_every_stream_and_bucket_survives_with_its_content(
    own_nats: NatsServer, tester: Bus
) -> None:
    for bucket in BUCKETS:
        await (await tester.bucket(bucket.bucket)).put("k", b"v")
    own_nats.kill()
    await until(lambda: not tester.connected, "the tester is disconnected")
    own_nats.start()
    await until(lambda: tester.connected, "the tester is back")
    for bucket in BUCKETS:
        found = await (await tester.bucket(bucket.bucket)).get("k")
        if bucket.bucket != LEASES:  # a lease may have expired meanwhile
            assert found is not None, bucket.bucket
    info = await tester.client.jetstream().stream_info(EVENTS)
    assert info.state.consumer_count == len(DURABLES)


async def test_a_change_after_a_restart_is_still_received(
    own_settings: Settings, own_nats: NatsServer, tester: Bus
) -> None:
    received: list[Change | None] = []
    policy = Service("policy", own_settings)
    policy.watch_bucket(CONFIG)(received.append)
    config = await tester.bucket(CONFIG)
    await config.put("key.bot", b"1")
    async with running(policy):
        assert [change and change.value for change in received] == [b"1", None]
        own_nats.kill()
        await until(lambda: not (policy.bus.connected or tester.connected), "both are disconnected")
        own_nats.start()
        await until(lambda: policy.bus.connected and tester.connected, "both are back")
        await config.put("key.bot", b"2")
        await until(lambda: any(c and c.value == b"2" for c in received), "the change was received")


async def test_a_change_made_before_the_service_reconnects_is_received(
    own_settings: Settings, own_nats: NatsServer, tester: Bus
) -> None:
    received: list[Change | None] = []
    ingress = Service("ingress", own_settings)
    ingress.watch_bucket(CATALOGUE)(received.append)
    catalogue = await tester.bucket(CATALOGUE)
    await catalogue.put("git", b"1")
    async with running(ingress):
        own_nats.kill()
        await until(
            lambda: not (ingress.bus.connected or tester.connected), "both are disconnected"
        )
        own_nats.start()
        await until(lambda: tester.connected, "the tester is back")
        await catalogue.delete("git")
        await until(
            lambda: any(c and c.value is None for c in received), "the deletion was received"
        )


async def test_a_durable_consumer_continues_where_it_was(
    own_settings: Settings, own_nats: NatsServer, tester: Bus
) -> None:
    received: list[bytes] = []
    policy, executor = Service("policy", own_settings), Service("executor", own_settings)

    @policy.broker.events("policy", seconds=0.2)
    async def settle(messages: EventBatch) -> None:
        for message in messages:
            received.append(message.data)
            await message.done(wait=True)

    def completed(call: int) -> CallCompleted:
        return CallCompleted(
            id=f"c{call}.completed", at=1.0, customer="a", call_id=f"c{call}", server="s", tool="t"
        )

    async def noted() -> bool:
        return await tester.finished(EVENTS, "policy") == inf

    async with running(executor, policy):
        await executor.events.publish_durable(completed(1))
        await until(lambda: len(received) == 1, "the first is received")
        await until_async(noted, "the first is acknowledged")
        own_nats.kill()
        await until(lambda: not executor.bus.connected, "executor is disconnected")
        executor.events.publish(completed(2))
        own_nats.start()
        await until(lambda: len(received) == 2, "the second is received")
    assert [json.loads(line)["call_id"] for line in received] == ["c1", "c2"]


async def test_a_closed_bus_stops_reconnecting_even_if_its_cancellation_was_lost(
    own_settings: Settings, own_nats: NatsServer
) -> None:
    policy = Bus("policy", own_settings.nats_url, (own_nats.seeds / "policy.seed").read_text())
    await policy.open()
    own_nats.kill()
    await until(lambda: not policy.connected, "policy is disconnected")
    reconnecting = policy.client._reconnection_task
    assert reconnecting is not None
    policy.client._reconnection_task = None  # so that closing cancels nothing
    await policy.close()
    await until(reconnecting.done, "the reconnection has stopped")
