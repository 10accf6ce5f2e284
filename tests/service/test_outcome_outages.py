"""An outage of the bus while an outcome is stored: no delivered outcome is lost."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from time import time
from typing import Any

import pytest

from harness.engines.bus_reset import connect_as_tester, provisioned
from harness.engines.nats_server import NatsServer
from harness.waits import until, until_async
from toolbus_common.calls.bucket_sizes import Size, follow_sizes
from toolbus_common.calls.outcome_store import OutcomeStore
from toolbus_common.concurrency import end
from toolbus_common.contracts import (
    CallAdmitted,
    CallResult,
    OutcomeClaim,
    ProtocolFamily,
    Stage,
    StoredOutcome,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.sealed_records import Records
from toolbus_common.nats.topology import OUTCOMES

ENTRY = "owner.call"
PATIENCE = 60.0


@pytest.fixture
async def tester(own_nats: NatsServer) -> AsyncIterator[Bus]:
    await provisioned(own_nats)
    async with connect_as_tester(own_nats.at) as bus:
        yield bus


async def test_an_outcome_is_stored_once_the_bus_is_back(own_nats: NatsServer, tester: Bus) -> None:
    bucket = await tester.bucket(OUTCOMES)
    call = CallAdmitted(
        call_id="first", reply_to="r", server="docs", tool="burn", customer="default", key="bot",
        family=ProtocolFamily.MODERN, deadline=time() + 30, traceparent="",
    )  # fmt: skip
    claimed = StoredOutcome(call_id="first", digest="d", deadline=call.deadline, family=call.family)
    records = Records(OUTCOMES, [bytes(32)])
    revision = await bucket.swap(ENTRY, records.seal(ENTRY, claimed.encode()), 0)
    assert revision is not None
    later: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        later.add(asyncio.ensure_future(work))

    own_nats.kill()
    await until(lambda: not tester.connected, "the bus is lost", PATIENCE)
    seal = records.key_of(ENTRY).encode()
    claim = OutcomeClaim(name=ENTRY, revision=revision, digest="d", seal=seal)
    await OutcomeStore(bucket, spawn).end(call, claim, CallResult(b'{"a":1}'))
    assert len(later) == 1, "the reply does not wait for the bus"
    own_nats.start()

    async def stored() -> StoredOutcome | None:
        if not tester.connected:
            return None
        entry = await bucket.get(ENTRY)
        assert entry is not None
        assert entry.value is not None
        found = StoredOutcome.decode(records.open(ENTRY, entry.value))
        return found if found.stage is not Stage.CLAIMED else None

    outcome = await until_async(stored, "the outcome", PATIENCE)
    assert (outcome.stage, outcome.reply) == (Stage.ENDED, b'a{"a":1}')
    await asyncio.gather(*later)


async def test_sizes_are_followed_across_a_restart(own_nats: NatsServer, tester: Bus) -> None:
    bucket = await tester.bucket(OUTCOMES)
    await bucket.put("a.before", b"x" * 10)
    received: dict[str, Size] = {}
    following = asyncio.create_task(
        follow_sizes(tester, OUTCOMES, lambda size: received.update({size.key: size}))
    )
    await until(lambda: "a.before" in received, "the present object")
    assert received["a.before"].bytes == 10
    assert abs(received["a.before"].at - time()) < PATIENCE
    own_nats.kill()
    await until(lambda: not tester.connected, "the bus is lost", PATIENCE)
    own_nats.start()
    await until(lambda: tester.connected, "it is back", PATIENCE)
    await bucket.put("a.after", b"x" * 20)
    await until(lambda: "a.after" in received, "the later object", PATIENCE)
    assert received["a.after"].bytes == 20
    await end(following)
