"""Connections of the ledger to Redis: TLS, a user with few rights, Sentinel."""

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from harness.engines.valkey_sentinel import SentinelGroup
from harness.engines.valkey_server import ValkeyServer
from harness.network.tcp_servers import closed_after, served
from harness.oauth.certificates import Authority
from harness.services.ledger_state import MemoryGenerations, admission, claim
from harness.waits import until_async
from toolbus_common.errors import BudgetExceededError, LedgerDownError, LedgerRebuildingError
from toolbus_policy.ledger.ledger import Ledger, ReservationEnd
from toolbus_policy.ledger.redis_url import RedisUrlError, pool_of

SECONDS = 10.0
CALLS = 42
PRICE = 100  # micro-dollars
# As in docs/how-to/running-replicas.md.
RIGHTS = (
    "~*", "resetchannels", "-@all", "+@read", "+@write", "+@scripting", "+@connection", "+time",
    "+info", "-flushall", "-flushdb", "-swapdb",
)  # fmt: skip


@pytest.fixture
def group(tmp_path: Path) -> Iterator[SentinelGroup]:
    with SentinelGroup(tmp_path).running() as running:
        yield running


async def granted(ledger: Ledger, rid: str) -> bool:
    """Return whether a call may be made; a call that cannot be decided may not."""
    try:
        await ledger.reserve(claim(rid, admission(PRICE, usd=CALLS * PRICE / 1_000_000)))
    except (BudgetExceededError, LedgerDownError, LedgerRebuildingError):
        return False
    return True


async def is_lost(ledger: Ledger) -> bool:
    """Return whether the ledger notices that counters are lost. It must grant nothing."""
    try:
        await ledger.reserve(claim("late", admission(PRICE)))
    except LedgerRebuildingError:
        return True
    except LedgerDownError:  # the replica is not the primary yet
        return False
    raise AssertionError("a call was granted")


async def many(ledger: Ledger, name: str, number: int) -> int:
    """Return how many of these calls were granted."""
    return sum(await asyncio.gather(*(granted(ledger, f"{name}{n}") for n in range(number))))


@asynccontextmanager
async def two_ledgers(url: str) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Return the ledgers of two policies on one Redis."""
    generations = MemoryGenerations()
    one, other = (Ledger(url, generations, SECONDS) for _ in range(2))
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()


async def test_counters_continue_after_a_failover_and_grant_nothing_twice(
    group: SentinelGroup,
) -> None:
    async with two_ledgers(group.sentinel.url) as (one, other):
        before = await many(one, "a", 10) + await many(other, "b", 10)
        assert before == 20
        await one.settle([ReservationEnd("a0", "acme", "settle", PRICE)])
        under_way = asyncio.gather(
            *(many(ledger, f"{name}{turn}.", 1) for turn in range(5) for ledger, name in
              ((one, "c"), (other, "d")))
        )  # fmt: skip
        await asyncio.to_thread(group.fail_over)
        before += sum(await under_way)
        after = await many(one, "e", CALLS) + await many(other, "f", CALLS)
        assert before + after <= CALLS


async def test_a_lagging_replica_grants_nothing_after_a_failover(group: SentinelGroup) -> None:
    async with two_ledgers(group.sentinel.url) as (one, other):
        assert await many(one, "a", 10) + await many(other, "b", 10) == 20
        await asyncio.to_thread(group.detach)
        assert await many(one, "c", 10) == 10
        await one.mark()  # policy does this once a second, and the others read it
        generation, tick = await one.store.read_state("acme")
        other.observe_mark("acme", generation, tick)
        await asyncio.to_thread(group.fail_over)
        for ledger in (other, one):
            await until_async(lambda ledger=ledger: is_lost(ledger), "the loss is noticed")  # type: ignore[misc]


async def test_tls_with_a_private_authority_and_a_client_certificate(
    own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*authority.vouched("localhost"))
    certificate, key = authority.vouched("client")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source, target = await asyncio.open_connection("127.0.0.1", own_valkey.port)
        async with closed_after(writer), closed_after(target), asyncio.TaskGroup() as tasks:
            tasks.create_task(_copied(reader, target))
            tasks.create_task(_copied(source, writer))

    async with served(forward, context=context) as port:
        trusted = f"rediss://localhost:{port}?ssl_ca_certs={authority.ca}"
        own = f"{trusted}&ssl_certfile={certificate}&ssl_keyfile={key}"
        async with two_ledgers(own) as (one, other):
            assert await many(one, "a", 3) + await many(other, "b", 3) == 6
        for refused in (trusted, f"rediss://localhost:{port}", f"redis://localhost:{port}"):
            async with two_ledgers(refused) as (ledger, _):
                assert not await granted(ledger, "c")


async def test_a_user_needs_only_the_documented_rights(own_valkey: ValkeyServer) -> None:
    with redis.Redis(port=own_valkey.port) as client:
        client.execute_command("ACL", "SETUSER", "toolbus", "on", ">secret", *RIGHTS)
        client.execute_command("ACL", "SETUSER", "default", "off")
    url = own_valkey.url.replace("redis://", "redis://toolbus:secret@")
    async with two_ledgers(url) as (ledger, _):
        assert await many(ledger, "a", 3) == 3
        await ledger.settle([ReservationEnd("a0", "acme", "settle", PRICE)])
        assert await ledger.claim_expired("acme") == []
        await ledger.store.delete_other_generations("acme", "none")
        assert await ledger.store.lock("acme", "token", 5.0)
        await ledger.store.unlock("acme", "token")
        assert not await ledger.store.problem()
    with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.flushall()
    async with two_ledgers(url.replace("secret", "other")) as (ledger, _):
        assert "rejects the user or password" in await ledger.store.problem()


async def test_a_server_of_a_cluster_is_refused_with_the_url_to_set(tmp_path: Path) -> None:
    class Clustered(ValkeyServer):
        def command(self) -> list[str]:
            return [*super().command(), "--cluster-enabled", "yes", "--cluster-port", "0"]

    with Clustered(tmp_path).running() as server:
        async with two_ledgers(server.url) as (ledger, _):
            assert "redis+cluster://" in await ledger.store.problem()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://host",
        "redis+sentinel:///ledger",
        "http://host",
        "redis://h:x",
        "redis://:part/of-a-password@h",
        "redis+sentinel://:part/of-a-password@h/ledger",
        "redis://h?unknown=option",
        "rediss+sentinel://h/ledger?ssl_unknown=option",
    ],
)
def test_an_invalid_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(RedisUrlError, match="TOOLBUS_REDIS_URL") as error:
        pool_of(url, socket_connect_timeout=1.0)
    shown = "".join(traceback.format_exception(error.value, chain=True))
    assert url not in shown
    assert "'part'" not in shown


@pytest.mark.parametrize("scheme", ["rediss", "rediss+sentinel"])
@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
@pytest.mark.parametrize("contents", ["no certificate", None])
def test_an_unusable_file_is_named(
    tmp_path: Path, scheme: str, option: str, contents: str | None
) -> None:
    path = tmp_path / "broken.pem"
    if contents is not None:
        path.write_text(contents)
    with pytest.raises(RedisUrlError, match=rf"{option}=\S+broken\.pem") as error:
        pool_of(f"{scheme}://u:secret@h/1?{option}={path}", socket_connect_timeout=1.0)
    assert "secret" not in str(error.value)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
