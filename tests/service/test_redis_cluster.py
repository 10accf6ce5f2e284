"""The ledger in a Valkey Cluster of three primaries: slots, moved slots, failovers, a rebuild."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from harness.engines.valkey_cluster import ValkeyCluster
from harness.services.ledger_operator import (
    KEY,
    LedgerOperator,
    running_ledger,
    serving_audit,
)
from harness.services.ledger_operator import PRICE as CALL_PRICE
from harness.services.ledger_state import MemoryGenerations, admitted, claim
from harness.waits import until_async
from toolbus_common.config import Budget, Key, Period
from toolbus_common.errors import BudgetExceededError, LedgerDownError, LedgerRebuildingError
from toolbus_common.settings import Settings
from toolbus_policy.ledger.ledger import Ledger, ReservationEnd
from toolbus_policy.ledger.redis_url import RedisUrlError, cluster_of
from toolbus_policy.ledger.valkey_store import BOOK, customer_key

SECONDS = 10.0
CALLS = 42
PRICE = 100  # micro-dollars
RACER = "racer"  # at another primary than "acme", because both primaries are killed
# As in docs/how-to/running-replicas.md.
RIGHTS = (
    "~*", "resetchannels", "-@all", "+@read", "+@write", "+@scripting", "+@connection", "+time",
    "+info", "-flushall", "-flushdb", "-swapdb", "+cluster|slots", "+cluster|info", "+asking",
)  # fmt: skip
LEVEL = ("key:bot", Key(budget=Budget(usd=CALLS * PRICE / 1_000_000, per=Period.DAY)))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")).running() as running:
        yield running


@asynccontextmanager
async def two_ledgers(url: str) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Return the ledgers of two policies on one cluster."""
    generations = MemoryGenerations()
    one, other = (Ledger(url, generations, SECONDS) for _ in range(2))
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()


async def granted(ledger: Ledger, customer: str, rid: str) -> bool:
    """Return whether a call may be made; a call that cannot be decided may not."""
    try:
        await ledger.reserve(claim(rid, admitted(PRICE, LEVEL, customer=customer)))
    except (BudgetExceededError, LedgerDownError, LedgerRebuildingError):
        return False
    return True


async def many(ledger: Ledger, customer: str, name: str, number: int) -> int:
    """Return how many of these calls were granted."""
    calls = (granted(ledger, customer, f"{name}{n}") for n in range(number))
    return sum(await asyncio.gather(*calls))


async def amounts(ledger: Ledger, customer: str) -> tuple[int, int]:
    """Return the key's spent and reserved money."""
    generation, _ = await ledger.store.read_state(customer)
    (level,) = await ledger.store.read_levels(customer, generation, [KEY])
    return level["spent"], level["reserved"]


def book(customer: str) -> str:
    return customer_key(customer, BOOK)


async def on_two_primaries(cluster: ValkeyCluster, ledger: Ledger) -> tuple[str, str]:
    """Return two customers with counters at different primaries."""
    first = "c0"
    await granted(ledger, first, "first")
    found = await asyncio.to_thread(cluster.primary_of, book(first))
    for number in range(1, 100):
        await granted(ledger, f"c{number}", "first")
        if await asyncio.to_thread(cluster.primary_of, book(f"c{number}")) is not found:
            return first, f"c{number}"
    raise AssertionError("all customers are at one primary")


async def test_customers_at_different_primaries_have_exact_budgets(cluster: ValkeyCluster) -> None:
    async with two_ledgers(cluster.url) as (one, other):
        customers = await on_two_primaries(cluster, one)
        for customer in customers:
            both = await asyncio.gather(
                many(one, customer, "a", CALLS), many(other, customer, "b", CALLS)
            )
            assert 1 + sum(both) == CALLS
            assert await amounts(one, customer) == (0, CALLS * PRICE)
            await one.settle([ReservationEnd("first", customer, "settle", PRICE)])
            await other.settle([ReservationEnd("first", customer, "settle", PRICE)])
            assert await amounts(other, customer) == (PRICE, (CALLS - 1) * PRICE)
            assert await one.claim_expired(customer) == []
            assert await one.store.lock(customer, "token", 5.0)
            await one.store.unlock(customer, "token")
            generation, _ = await one.store.read_state(customer)
            await one.store.delete_other_generations(customer, generation)
            assert await amounts(one, customer) == (PRICE, (CALLS - 1) * PRICE)
        assert not await one.store.problem()


async def test_a_user_of_a_cluster_needs_only_the_documented_rights(cluster: ValkeyCluster) -> None:
    for each in cluster.servers:
        each.run("ACL", "SETUSER", "toolbus", "on", ">secret", *RIGHTS)
    async with two_ledgers(cluster.url.replace("//", "//toolbus:secret@")) as (one, other):
        assert await many(one, "user", "a", 2) + await many(other, "user", "b", 2) == 4
        assert not await one.store.problem()
        await one.store.delete_other_generations("user", "none")
    async with two_ledgers(cluster.url.replace("//", "//toolbus:other@")) as (one, _):
        assert "user or password" in await one.store.problem()


async def test_a_slot_that_moves_to_another_primary_takes_its_budget_along(
    cluster: ValkeyCluster,
) -> None:
    async with two_ledgers(cluster.url) as (one, other):
        count = await many(one, "mover", "a", 10) + await many(other, "mover", "b", 10)
        slot, source = cluster.slot_of(book("mover")), cluster.primary_of(book("mover"))
        target = next(
            each
            for each in cluster.servers
            if each is not source and each.is_running and each.run("ROLE")[0] == "master"
        )
        cluster.begin_move(slot, source, target)
        count += await many(one, "mover", "c", 3)
        cluster.move_keys(slot, source, target, 2)
        count += await many(one, "mover", "d", 3)  # some keys here, some there: refused
        cluster.move_keys(slot, source, target, 100)
        count += await many(other, "mover", "e", 3)  # the source asks for the target
        cluster.end_move(slot, source, target)
        moved = await many(one, "mover", "f", 5) + await many(other, "mover", "g", 5)
        assert moved == 10
        assert await amounts(one, "mover") == (0, (count + moved) * PRICE)
        assert await many(one, "mover", "h", CALLS) == CALLS - count - moved


async def test_a_replaced_primary_grants_nothing_twice(cluster: ValkeyCluster) -> None:
    async with two_ledgers(cluster.url) as (one, other):
        before = await many(one, RACER, "a", 10) + await many(other, RACER, "b", 10)
        assert before == 20
        under_way = asyncio.gather(
            *(
                many(ledger, RACER, f"{name}{turn}.", 1)
                for turn in range(5)
                for ledger, name in ((one, "c"), (other, "d"))
            )
        )
        primary = cluster.primary_of(book(RACER))
        await asyncio.to_thread(cluster.fail_over, primary)
        before += sum(await under_way)
        after = await many(one, RACER, "e", CALLS) + await many(other, RACER, "f", CALLS)
        assert before + after <= CALLS


async def test_a_lagging_replica_is_rebuilt_from_the_events(
    cluster: ValkeyCluster, settings: Settings
) -> None:
    async with serving_audit(settings), running_ledger(settings, cluster.url) as operator:
        for _ in range(2):
            await operator.call()
        primary = cluster.primary_of(book("acme"))
        cluster.detach(primary)
        for _ in range(3):
            await operator.call()
        assert await amounts(operator.ledger, "acme") == (5 * CALL_PRICE, 0)
        await asyncio.to_thread(cluster.fail_over, primary)
        await until_async(lambda: is_lost(operator), "the loss is noticed")
        await operator.rebuilder.rebuild("acme")
        assert await amounts(operator.ledger, "acme") == (5 * CALL_PRICE, 0)
        await operator.call()
        assert await amounts(operator.ledger, "acme") == (6 * CALL_PRICE, 0)


async def is_lost(operator: LedgerOperator) -> bool:
    """Return whether the ledger notices that counters are lost. It must grant nothing."""
    try:
        await operator.call()
    except LedgerRebuildingError:
        return True
    except LedgerDownError:  # the client does not know the new primary yet
        return False
    raise AssertionError("a call was granted")


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster:///",
        "redis+cluster://h/1",
        "redis+cluster://h?db=1",
        "redis+cluster://h?unknown=option",
        "redis+cluster://:part/of-a-password@h",
        "http+cluster://h",
    ],
)
def test_an_invalid_url_of_a_cluster_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(RedisUrlError, match="TOOLBUS_REDIS_URL") as error:
        cluster_of(url, 1.0)
    assert "part" not in str(error.value)
