"""A script that arrives twice counts each call once, in either order of its two copies."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as redis

from harness.engines.valkey_server import ValkeyServer
from harness.network.redis_servers import LossyProxy
from harness.services.ledger_state import MemoryGenerations, admission, admitted, claim, counters
from harness.waits import until
from toolbus_common.config import Level, Loop, Period, Rate
from toolbus_common.errors import LoopDetectedError, RateExceededError
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.ledger.ledger import Ledger, ReservationEnd
from toolbus_policy.ledger.lua_scripts import ScriptRunner
from toolbus_policy.ledger.valkey_store import BOOK, customer_key

PATIENT = 60.0
FULL = 3  # calls that the limits of these tests allow
RATE = admitted(0, ("key:bot", Level(rate=Rate(calls=FULL, per=Period.HOUR))))
LOOP = admitted(0, ("key:bot", Level(loop=Loop(calls=FULL, seconds=3600))))
ERRORS = (RateExceededError, LoopDetectedError)


@pytest.fixture
async def proxy(own_valkey: ValkeyServer) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(own_valkey.port).running() as running:
        yield running


@pytest.fixture
async def ledger(proxy: LossyProxy) -> AsyncIterator[Ledger]:
    """Return a ledger whose connection is open and whose scripts are loaded."""
    made = Ledger(proxy.url, MemoryGenerations(), seconds=PATIENT)
    await made.reserve(claim("opened", admission(100)))
    await made.settle([ReservationEnd("opened", "acme", "refund")])
    yield made
    await made.close()


async def reserve_again(ledger: Ledger, proxy: LossyProxy, rid: str, wanted: Admission) -> None:
    """Reserve, with a script whose reply is lost."""
    proxy.lose_reply = True
    await ledger.reserve(claim(rid, wanted, repeated="same"))
    assert not proxy.lose_reply


async def reserve_before_first_copy(
    ledger: Ledger, proxy: LossyProxy, rid: str, wanted: Admission
) -> None:
    """Reserve, with a script whose first copy arrives when the test releases it."""
    proxy.hold_request = True
    await ledger.reserve(claim(rid, wanted, repeated="same"))
    assert not proxy.hold_request


@pytest.mark.parametrize("wanted", [RATE, LOOP], ids=["rate", "loop"])
async def test_a_call_with_a_limit_but_no_budget_is_counted_once(
    ledger: Ledger, proxy: LossyProxy, wanted: Admission
) -> None:
    for number in range(FULL):
        await reserve_again(ledger, proxy, f"r{number}", wanted)
    with pytest.raises(ERRORS):
        await ledger.reserve(claim("more", wanted, repeated="same"))


@pytest.mark.parametrize("wanted", [RATE, LOOP], ids=["rate", "loop"])
async def test_a_limit_does_not_count_a_first_copy_that_arrives_late(
    ledger: Ledger, proxy: LossyProxy, wanted: Admission
) -> None:
    for number in range(FULL):
        await reserve_before_first_copy(ledger, proxy, f"r{number}", wanted)
        await proxy.release()
    with pytest.raises(ERRORS):
        await ledger.reserve(claim("more", wanted, repeated="same"))


async def test_a_call_with_a_budget_is_held_once(
    ledger: Ledger, proxy: LossyProxy, own_valkey: ValkeyServer
) -> None:
    await reserve_again(ledger, proxy, "r", admission(100))
    assert (await counters(own_valkey.url))["reserved"] == 100


async def test_a_first_copy_that_arrives_after_the_settlement_holds_nothing(
    ledger: Ledger, proxy: LossyProxy, own_valkey: ValkeyServer
) -> None:
    await reserve_before_first_copy(ledger, proxy, "r", admission(100))
    await ledger.settle([ReservationEnd("r", "acme", "settle", 80)])
    assert b"ok" in await proxy.release()
    found = await counters(own_valkey.url)
    assert (found["spent"], found["reserved"]) == (80, 0)
    assert await ledger.recorded_calls("acme", ["r"]) == set()


@pytest.mark.parametrize(("how", "spent"), [("settle", 80), ("refund", 0), ("unknown", 100)])
async def test_a_settlement_whose_reply_is_lost_charges_once(
    ledger: Ledger, proxy: LossyProxy, own_valkey: ValkeyServer, how: str, spent: int
) -> None:
    await ledger.reserve(claim("r", admission(100)))
    proxy.lose_reply = True
    await ledger.settle([ReservationEnd("r", "acme", how, 80)])  # type: ignore[arg-type]
    found = await counters(own_valkey.url)
    assert (found["spent"], found["reserved"], proxy.lose_reply) == (spent, 0, False)


async def test_a_settlement_that_arrives_after_a_correction_changes_nothing(
    ledger: Ledger, proxy: LossyProxy, own_valkey: ValkeyServer
) -> None:
    await ledger.reserve(claim("r", admission(100)))
    proxy.hold_request = True
    await ledger.settle([ReservationEnd("r", "acme", "unknown")])
    await ledger.settle([ReservationEnd("r", "acme", "settle", 80)])
    await proxy.release()
    found = await counters(own_valkey.url)
    assert (found["spent"], found["reserved"]) == (80, 0)


async def test_a_generation_whose_opening_is_repeated_counts_as_opened(
    ledger: Ledger, proxy: LossyProxy
) -> None:
    store = ledger.store
    assert await store.lock("acme", "token", 60)
    assert await store.open_generation("acme", "token", "new")
    assert await store.lock("acme", "token", 60)
    await store.close_counters("acme")
    proxy.lose_reply = True
    assert await store.open_generation("acme", "token", "newer")
    assert await store.read_state("acme") == ("newer", 0)
    assert not await store.open_generation("acme", "token", "another")


async def test_the_ids_of_counted_calls_are_forgotten(
    ledger: Ledger, own_valkey: ValkeyServer
) -> None:
    await ledger.reserve(claim("r0", RATE))
    async with redis.Redis.from_url(own_valkey.url, decode_responses=True) as client:
        epoch = await client.hget(customer_key("acme", BOOK), "epoch")
        name = customer_key("acme", f"{epoch!s}:counted")
        counted: Any = await client.zrange(name, 0, -1, withscores=True)
        ((rid, until_ms),) = counted
        seconds, _ = await client.time()
        assert rid == "r0"
        assert until_ms / 1000 <= seconds + 2 * PATIENT + 1
        assert await client.pttl(name) > 0
        await client.zadd(name, {"r0": 1})
        await ledger.reserve(claim("r1", RATE))
        assert await client.zrange(name, 0, -1) == ["r1"]
        await ledger.reserve(claim("paid", admission(100)))
        assert await client.zrange(name, 0, -1) == ["r1"], "its record shows that it is counted"


async def test_a_cancelled_settlement_is_not_sent_again(
    ledger: Ledger, proxy: LossyProxy, own_valkey: ValkeyServer
) -> None:
    await ledger.reserve(claim("r", admission(100)))
    runner = ledger.store._scripts
    assert isinstance(runner, ScriptRunner)
    proxy.hold_request = True
    settlement = runner.run("settle", ["a", "b", "c", "d"], ["e", 0])
    settlement.cancel()
    await until(lambda: runner._connection is None, "the connection is lost")
    assert runner._waiting == []
    await ledger.reserve(claim("r2", admission(100)))
    assert (await counters(own_valkey.url))["reserved"] == 200
