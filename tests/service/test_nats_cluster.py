"""Three NATS servers as one cluster: its configuration, provisioning, and the loss of a server."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from harness.engines.nats_cluster import NAMES, ClusterNode, clustered
from harness.oauth.certificates import Authority
from harness.waits import until_async
from toolbus_cli.commands.operate.nats_cluster import ServerTls, parsed_nodes
from toolbus_cli.errors import CommandError
from toolbus_common.contracts import ConfigApplied
from toolbus_common.errors import EventsFullError
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.provision import Provisioned, provision
from toolbus_common.nats.stream_reader import use_of
from toolbus_common.nats.topology import BUCKETS, EVENTS, OBJECTS
from toolbus_common.tls_files import TlsFiles

EVENTS_BYTES = 1 << 30
STREAMS = 1 + len(BUCKETS) + len(OBJECTS)


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    return tmp_path / "nkeys"


@pytest.fixture
def nodes(tmp_path: Path, seeds: Path) -> Iterator[list[ClusterNode]]:
    """Start the three servers."""
    with clustered(tmp_path, seeds, None) as started:
        yield started


@pytest.fixture
def tls(tmp_path: Path) -> TlsFiles:
    """Create an authority with the certificates of the servers and of a client."""
    authority = Authority(tmp_path)
    certificate, key = authority.vouched("localhost")
    for name in NAMES:
        shutil.copy(certificate, tmp_path / f"{name}.pem")
        shutil.copy(key, tmp_path / f"{name}.key")
    return TlsFiles("TOOLBUS_NATS", authority.ca, *authority.vouched("client"))


@pytest.fixture
def secured(tmp_path: Path, seeds: Path, tls: TlsFiles) -> Iterator[list[ClusterNode]]:
    """Start the three servers with TLS, and with certificates of clients and of each other."""
    assert tls.context
    with clustered(tmp_path, seeds, ServerTls(str(tmp_path), verify=True)) as started:
        yield started


@asynccontextmanager
async def joined(urls: str, seeds: Path, tls: TlsFiles | None = None) -> AsyncIterator[Bus]:
    """Connect as the operator, as soon as the cluster has a leader."""
    bus = Bus(OPERATOR, urls, (seeds / f"{OPERATOR}.seed").read_text(), tls)
    await bus.open()

    async def has_leader() -> bool:
        try:
            await bus.client.jetstream(timeout=5).account_info()
        except (NatsError, JetStreamError, TimeoutError):
            return False
        return True

    try:
        await until_async(has_leader, "a leader of the cluster")
        yield bus
    finally:
        await bus.close()


async def replicas_of(bus: Bus) -> set[int]:
    """Return the numbers of replicas that the streams have."""
    stream = bus.client.jetstream(timeout=30)
    return {each.config.num_replicas or 1 for each in await stream.streams_info()}


def changed(found: list[Provisioned]) -> list[Provisioned]:
    return [each for each in found if each.changes]


async def test_existing_streams_and_buckets_get_replicas_and_never_lose_them_unasked(
    nodes: list[ClusterNode], seeds: Path
) -> None:
    urls = ",".join(each.url for each in nodes)
    async with joined(urls, seeds) as bus:
        first = await provision(bus, default_events_bytes=EVENTS_BYTES)
        assert all(each.created and each.is_single_copy for each in first)
        raised = await provision(bus, replicas=3, events_bytes=2 * EVENTS_BYTES)
        assert len(raised) == len(changed(raised)) == STREAMS
        assert raised[0].changes["max_bytes"] == (EVENTS_BYTES, 2 * EVENTS_BYTES)
        assert await replicas_of(bus) == {3}
        again = await provision(bus)
        assert not changed(again)
        assert (again[0].replicas, again[0].max_bytes) == (3, 2 * EVENTS_BYTES)
        assert await replicas_of(bus) == {3}


async def test_a_service_starts_and_stores_events_while_one_server_is_lost(
    secured: list[ClusterNode], seeds: Path, tls: TlsFiles
) -> None:
    urls = ",".join(each.url for each in secured)
    async with joined(urls, seeds, tls) as bus:
        await provision(bus, replicas=3, default_events_bytes=EVENTS_BYTES)
    secured[0].kill()  # the first URL
    async with joined(urls, seeds, tls) as bus:
        stream = bus.client.jetstream(timeout=5)

        async def stored() -> bool:
            try:
                await bus.store(Envelope(f"tb.event.{ConfigApplied.NAME}.c", "m1", b"{}"))
            except Exception:  # noqa: BLE001 - until another server leads the stream
                return False
            return True

        await until_async(stored, "an event in the stream")
        assert (await stream.stream_info(EVENTS)).state.messages == 1

        async def noticed() -> bool:
            return (await use_of(bus.client, EVENTS)).lagging == 1

        await until_async(noticed, "the copy of the lost server")


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["n1"], "NAME=HOST"),
        (["n1=h1", "n1=h2", "n3=h3"], "same name"),
        (["n1=h1", "n2=h2"], "three servers"),
    ],
)
def test_a_cluster_that_could_not_work_is_refused(texts: list[str], named: str) -> None:
    with pytest.raises(CommandError, match=named):
        parsed_nodes(texts)


async def test_a_single_server_is_no_cluster_and_needs_no_warning(operator: Bus) -> None:
    found = await provision(operator)
    assert len(found) == STREAMS
    assert not any(each.is_single_copy or each.changes for each in found)


async def test_a_full_stream_of_events_has_an_error_of_its_own(
    nodes: list[ClusterNode], seeds: Path
) -> None:
    async with joined(nodes[0].url, seeds) as bus:
        await provision(bus, events_bytes=1 << 20)

        async def fill() -> None:
            for number in range(20):
                subject = f"tb.event.{ConfigApplied.NAME}.c"
                await bus.store(Envelope(subject, f"m{number}", b" " * (100 << 10)))

        with pytest.raises(EventsFullError, match="--events-gib"):
            await fill()
        use = await use_of(bus.client, EVENTS)
        assert use.stored > use.maximum // 2
        assert use.is_single_copy
