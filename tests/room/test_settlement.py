"""Reservations without an outcome: ended by their time, but not before every outcome is heard."""

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from time import time

import pytest

from harness.facts import completed, facts_of, until
from harness.ledger import RememberedEpochs, admission, claim, counters
from toolbus_common.bus import Bus
from toolbus_common.errors import BusDownError
from toolbus_common.provision import FACTS
from toolbus_common.room import Room
from toolbus_common.settings import Settings
from toolbus_common.spool import Envelope
from toolbus_policy.ledger import Ledger
from toolbus_policy.settlement import Settlement


@pytest.fixture
async def settlement(settings: Settings, valkey_url: str) -> AsyncIterator[Settlement]:
    room, ledger = Room("policy", settings), Ledger(valkey_url, RememberedEpochs(), 30.0)
    async with room.running():
        yield Settlement(room, ledger, lambda: ["acme"])
        await ledger.close()


async def test_nothing_is_refunded_while_a_replica_may_have_its_outcome_in_hand(
    settlement: Settlement, settings: Settings, valkey_url: str
) -> None:
    await settlement.ledger.reserve(claim("r", admission(100), due=time() - 1))
    async with facts_of("executor", settings, settings.state_dir) as executor:
        await executor.record(completed(call_id="r", charge=100, reserved=True))
    taken = settlement.room.bus.consume(FACTS, "policy", 1, 30.0)
    async with aclosing(taken) as batches:  # type: ignore[type-var]
        messages = await anext(batches)
        assert len(messages) == 1
        for _ in range(4):
            await settlement.reap_once()
        assert (await counters(valkey_url))["held"] == 100
        await settlement.hear(messages)
    found = await counters(valkey_url)
    assert (found["spent"], found["held"]) == (100, 0)


async def test_what_nobody_handed_over_is_refunded_once_every_outcome_is_heard(
    settlement: Settlement, valkey_url: str
) -> None:
    await settlement.ledger.reserve(claim("r", admission(100), due=time() - 1))

    async def refunded() -> bool:
        await settlement.reap_once()
        return (await counters(valkey_url))["held"] == 0

    await until(refunded, "it is refunded")
    assert (await counters(valkey_url))["spent"] == 0


async def test_a_call_that_never_came_back_is_named_once_however_the_bus_fares(
    settlement: Settlement,
    operator: Bus,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await settlement.ledger.reserve(claim("r", admission(100), due=time() - 1))
    settlement.ledger.dispatch("acme", "r")
    await settlement.ledger._marks.drain()  # a look at what is overdue would claim it
    facts = settlement.room.facts
    publish, refused = facts._publish, list[Envelope]()

    async def shaky(envelope: Envelope) -> None:
        if envelope.subject.startswith("tb.fact.call.failed") and not refused:
            refused.append(envelope)
            raise BusDownError("down")
        await publish(envelope)

    monkeypatch.setattr(facts, "_publish", shaky)

    async def charged() -> bool:
        with suppress(BusDownError):
            await settlement.reap_once()
        return (await counters(valkey_url))["spent"] == 100

    await until(charged, "it is charged")
    assert refused
    stream = await operator.client.jetstream().stream_info("FACTS", subjects_filter="tb.fact.>")
    assert (stream.state.subjects or {})["tb.fact.call.failed.acme"] == 1
