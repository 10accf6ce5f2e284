"""Two policy replicas rebuild an emptied Valkey once, and refuse nothing afterwards."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from harness.services.ledger_operator import (
    PRICE,
    LedgerOperator,
    empty_valkey,
    running_ledger,
    serving_audit,
)
from harness.waits import until_async
from toolbus_common.concurrency import in_background
from toolbus_common.contracts import LedgerOpened
from toolbus_common.errors import LedgerRebuildingError
from toolbus_common.nats.connection import LARGEST_MESSAGE, Bus
from toolbus_common.nats.stream_reader import read_from
from toolbus_common.nats.topology import CONFIG, EVENTS
from toolbus_common.settings import Settings

ROUNDS = 2


@pytest.fixture
async def replicas(
    settings: Settings, valkey_url: str
) -> AsyncIterator[tuple[LedgerOperator, LedgerOperator]]:
    async with (
        serving_audit(settings),
        running_ledger(settings, valkey_url) as one,
        running_ledger(settings, valkey_url) as other,
    ):
        yield one, other


async def rebuilds(bus: Bus) -> int:
    """Return how many generations replaced another one, by the events of the stream."""
    subject = f"tb.event.{LedgerOpened.NAME}.*"
    found = await read_from(bus.client, EVENTS, 1, subject)
    return sum(b'"how":"rebuilt"' in each.data for each in found)


async def test_replicas_rebuild_once_each_time_valkey_is_emptied(
    replicas: tuple[LedgerOperator, LedgerOperator],
    operator: Bus,
    valkey_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    one, other = replicas
    for each in replicas:
        each.ledger.on_lost = each.rebuilder.enqueue
    async with in_background(one.rebuilder.run(), other.rebuilder.run()):
        for number in range(1, ROUNDS + 1):
            await asyncio.gather(one.call(), other.call())
            await empty_valkey(valkey_url)
            await asyncio.gather(until_reserved(one), until_reserved(other))
            assert await rebuilds(operator) == number
            await one.call()  # no replica has closed the counters again
    assert await rebuilds(operator) == ROUNDS
    ledger_lines = [each for each in caplog.records if each.message.startswith("ledger.")]
    assert len(ledger_lines) <= 5 * ROUNDS


async def until_reserved(replica: LedgerOperator) -> None:
    """Make calls until the counters are open again."""

    async def reserved() -> bool:
        try:
            await replica.call()
        except LedgerRebuildingError:
            return False
        return True

    await until_async(reserved, "the counters are open")


async def test_a_replica_that_waited_for_the_lock_leaves_rebuilt_counters_alone(
    replicas: tuple[LedgerOperator, LedgerOperator],
    operator: Bus,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = replicas
    await one.call()
    await empty_valkey(valkey_url)
    lock = other.ledger.store.lock

    async def late(customer: str, token: str, seconds: float) -> bool:
        assert await one.rebuilder.rebuild("acme") is not None
        return await lock(customer, token, seconds)

    monkeypatch.setattr(other.ledger.store, "lock", late)
    assert await other.rebuilder.rebuild("acme") is None
    assert await rebuilds(operator) == 1
    await other.call()
    assert (await one.standing())[0] == 2 * PRICE


async def test_a_replica_that_lost_its_lock_opens_no_generation(
    replicas: tuple[LedgerOperator, LedgerOperator],
    operator: Bus,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = replicas
    await one.call()
    await empty_valkey(valkey_url)
    write = one.ledger.store.write_contents

    async def emptied_again(*given: object) -> None:
        await write(*given)  # type: ignore[arg-type]
        await empty_valkey(valkey_url)

    monkeypatch.setattr(one.ledger.store, "write_contents", emptied_again)
    with pytest.raises(LedgerRebuildingError, match="lost again"):
        await one.rebuilder.rebuild("acme")
    assert await rebuilds(operator) == 0
    assert await other.rebuilder.rebuild("acme") is not None


async def test_an_entry_is_read_at_the_leader_and_not_at_any_replica(operator: Bus) -> None:
    bucket = await operator.bucket(CONFIG)
    await bucket.put("key.one", b"1")
    await bucket.put("key.one", b"2")
    stream = operator.client.jetstream()
    config = (await stream.stream_info(f"KV_{CONFIG}")).config
    await stream.update_stream(config.evolve(allow_direct=False))  # no replica may answer now
    try:
        found = await bucket.get("key.one")
        assert found is not None
        assert found.value == b"2"
        assert await bucket.get("key.*") is None
        large = b"x" * (LARGEST_MESSAGE - 1024)  # larger in the leader's reply than a message
        await bucket.put("key.large", large)
        found = await bucket.get("key.large")
        assert found is not None
        assert found.value == large
    finally:
        await stream.update_stream(config)
