"""Clients leave a NATS server that announces its end, and one that hangs."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from harness.engines.nats_cluster import ClusterNode, declared_nodes, running
from harness.waits import until, until_async
from toolbus_common.nats import connection
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

ENOUGH = 200  # requests before and after the move


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    return tmp_path / "nkeys"


@pytest.fixture
def nodes(tmp_path: Path, seeds: Path) -> Iterator[list[ClusterNode]]:
    """Start the three servers, whose users may use any subject."""
    declared = declared_nodes(tmp_path, seeds, None)
    for each in declared:
        each.permit_everything()
    with running(declared) as started:
        yield started


@asynccontextmanager
async def client(nodes: list[ClusterNode], seeds: Path) -> AsyncIterator[Bus]:
    """Connect to the first of these servers; the others are for a move."""
    seed = (seeds / f"{OPERATOR}.seed").read_text()
    bus = Bus(OPERATOR, nodes[0].url, seed)
    await bus.open()
    bus._departure._servers = [each.url for each in nodes]  # type: ignore[union-attr]
    try:
        yield bus
    finally:
        await bus.close()


async def test_requests_replies_and_notifications_survive_a_move(
    nodes: list[ClusterNode], seeds: Path
) -> None:
    first, second, third = nodes
    async with (
        client([first, second], seeds) as asking,
        client([first, third], seeds) as one,
        client([first, second], seeds) as two,
        client([second, first], seeds) as publishing,
    ):
        lost: list[str] = []
        for each in (asking, one, two):
            each.on_lost.append(lambda: lost.append("connection"))
        received: dict[Bus, Counter[bytes]] = {one: Counter(), two: Counter()}
        for each in (one, two):
            await each.subscribe(
                "test.news",
                lambda data, *_, each=each: received[each].update([data]),
            )
        answered = Counter[bytes]()
        for each in (one, two):
            await serve(each)
            await each.settled()
        stopped, sent = asyncio.Event(), [0]

        async def ask() -> None:
            while not stopped.is_set():
                for number in range(sent[0], sent[0] + 5):
                    await publishing.publish("test.news", str(number).encode())
                bodies = [str(number).encode() for number in range(sent[0], sent[0] + 5)]
                answered.update(
                    await asyncio.gather(
                        *(asking.request("test.echo", each, 10.0) for each in bodies)
                    )
                )
                sent[0] += 5

        load = asyncio.create_task(ask())
        await more(sent, "requests before the move")
        first.signal(signal.SIGUSR2)
        await until_async(lambda: moved(first, asking, one, two), "every client has moved")
        await more(sent, "requests after the move")
        first.kill()
        await more(sent, "requests without the server")
        stopped.set()
        await load
        expected = Counter(str(number).encode() for number in range(sent[0]))
        assert answered == expected
        for each in (one, two):
            await until_async(lambda each=each: past([received[each].total()], sent[0] - 1), "news")  # type: ignore[misc]
            assert received[each] == expected
        assert not lost


async def test_a_client_leaves_a_server_that_hangs(
    nodes: list[ClusterNode], seeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PINGS", 1_000)  # so that only the look at the server counts
    seed = (seeds / f"{OPERATOR}.seed").read_text()
    bus, other = (Bus(OPERATOR, ",".join(each.url for each in nodes), seed) for _ in range(2))
    await bus.open()
    lost = asyncio.Event()
    bus.on_lost.append(lost.set)
    (node,) = (each for each in nodes if each.port == bus.client.connected_url.port)  # type: ignore[union-attr]
    node.freeze()
    try:
        await until_async(lambda: moved(node, bus), "the client has moved")
        await until(lost.is_set, "calls in progress have ended")
        await other.open()
        await serve(other)
        await other.settled()

        async def answered() -> bool:
            try:
                return await bus.request("test.echo", b"1", 1.0) == b"1"
            except (LookupError, TimeoutError, NatsError):
                return False

        await until_async(answered, "a reply through another server")
    finally:
        node.thaw()
        await bus.close()
        await other.close()


async def serve(bus: Bus) -> None:
    """Return each request to its sender, shared with the other replica."""

    def reply(data: bytes, _subject: str, address: str) -> None:
        asyncio.get_running_loop().create_task(bus.publish(address, data))

    await bus.subscribe("test.echo", reply, queue="echo")


async def more(sent: list[int], what: str) -> None:
    """Wait for some more requests."""
    enough = sent[0] + ENOUGH
    await until_async(lambda: past(sent, enough), what)


async def past(sent: list[int], number: int) -> bool:
    return sent[0] > number


async def moved(node: ClusterNode, *clients: Bus) -> bool:
    """Return whether no client has a connection to the server any more."""
    return all(
        each.client.connected_url is not None
        and each.client.connected_url.port != node.port
        and each.client._left is None  # type: ignore[attr-defined]
        for each in clients
    )
