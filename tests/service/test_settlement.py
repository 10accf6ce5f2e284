"""Reservations without an outcome: settled after their deadline, by the intents in the stream."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import time
from typing import Any

import pytest

from harness.audit.events import allowed, completed, events_of, pulling
from harness.engines.bus_reset import connect_as_tester, provisioned
from harness.engines.nats_server import NatsServer
from harness.services.ledger_state import ABOUT, MemoryGenerations, admission, counters
from harness.waits import until_async
from toolbus_common.contracts import CallFailed
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.provision import provision
from toolbus_common.nats.stream_reader import StreamEntry, read_from
from toolbus_common.nats.topology import EVENTS
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_policy.ledger.ledger import ExpiredReservation, Ledger
from toolbus_policy.ledger.recovery import intent_evidence as evidence
from toolbus_policy.ledger.reservation import CallContext
from toolbus_policy.ledger.reserve_args import ReservationRequest
from toolbus_policy.ledger.settlement import SettlementConsumer, unknown_outcome

CHARGED, REFUNDED, HELD = (100, 0), (0, 0), (0, 100)


@asynccontextmanager
async def settling(settings: Settings, valkey_url: str) -> AsyncIterator[SettlementConsumer]:
    service, ledger = Service("policy", settings), Ledger(valkey_url, MemoryGenerations(), 30.0)
    async with service.running():
        yield SettlementConsumer(service, ledger, lambda: ["acme"], 1.0)
        await ledger.close()


@pytest.fixture
async def settlement(settings: Settings, valkey_url: str) -> AsyncIterator[SettlementConsumer]:
    async with settling(settings, valkey_url) as settlement:
        yield settlement


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages smaller than the number of intents."""
    monkeypatch.setattr(evidence, "PAGE", 2)


def late(rid: str, after: int = 0) -> ReservationRequest:
    """Return a reservation of a call whose deadline has passed."""
    about = CallContext.decode(ABOUT)._replace(after=after).encode()
    return ReservationRequest(rid, admission(100), about, time() - 1)


async def amounts(url: str) -> tuple[int, int]:
    """Return the spent and the reserved amount."""
    found = await counters(url)
    return found["spent"], found["reserved"]


async def swept(settlement: SettlementConsumer, url: str) -> tuple[int, int]:
    """Return the amounts once nothing is reserved any more."""

    async def ended() -> bool:
        with suppress(BusDownError):
            await settlement.sweep_once()
        return (await amounts(url))[1] == 0

    await until_async(ended, "nothing is held")
    return await amounts(url)


async def test_nothing_is_refunded_while_a_replica_may_have_the_outcome(
    settlement: SettlementConsumer, settings: Settings, valkey_url: str
) -> None:
    await settlement.ledger.reserve(late("r"))
    async with events_of("executor", settings, settings.state_dir) as executor:
        await executor.publish_durable(completed(call_id="r", charge=100, reserved=True))
    async with pulling(settlement.service.bus, "policy") as pull:
        messages = await pull(1, 30.0)
        assert len(messages) == 1
        for _ in range(4):
            await settlement.sweep_once()
        assert await amounts(valkey_url) == HELD
        await settlement.handle_batch(messages)
    assert await amounts(valkey_url) == CHARGED


async def test_a_call_without_an_intent_is_refunded(
    settlement: SettlementConsumer, valkey_url: str
) -> None:
    for other in ("r1", "other"):  # an id is no part of another's
        await settlement.service.events.publish_durable(allowed(call_id=other, parent_id="r"))
    await settlement.service.events.publish_durable(allowed(call_id="r", customer="globex"))
    await settlement.ledger.reserve(late("r"))
    assert await swept(settlement, valkey_url) == REFUNDED


@pytest.mark.usefixtures("small_pages")
async def test_a_call_with_an_intent_is_charged_in_full_among_many_others(
    settlement: SettlementConsumer, valkey_url: str
) -> None:
    events = settlement.service.events
    await events.publish_durable(allowed(call_id="before"))
    after = await settlement.note_newest()
    await settlement.ledger.reserve(late("r", after))
    await settlement.ledger.reserve(late("without", after))
    for number in range(5):
        await events.publish_durable(allowed(call_id=f"other{number}"))
        await events.publish_durable(allowed(call_id="without", customer="globex"))
    await asyncio.gather(
        *(events.publish_durable(allowed(call_id=each)) for each in ("x", "r", "y"))
    )
    assert await swept(settlement, valkey_url) == CHARGED


async def test_an_intent_known_only_to_the_stream_leader_counts(
    settlement: SettlementConsumer, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_from

    async def lagging(client: Any, stream: str, first: Any, *given: Any) -> list[StreamEntry]:
        return [each for each in await whole(client, stream, first, *given) if each.sequence < 2]

    monkeypatch.setattr(evidence, "read_from", lagging)
    for rid in ("early", "r"):
        await settlement.service.events.publish_durable(allowed(call_id=rid))
    await settlement.ledger.reserve(late("r"))
    assert await swept(settlement, valkey_url) == CHARGED


async def test_an_outcome_that_a_killed_replica_has_published_is_not_published_again(
    settlement: SettlementConsumer, settings: Settings, valkey_url: str
) -> None:
    for rid in ("r", "s"):
        await settlement.service.events.publish_durable(allowed(call_id=rid))
        await settlement.ledger.reserve(late(rid))
    killed = ExpiredReservation("r", "acme", int(time()), 100, CallContext.decode(ABOUT))
    async with events_of("policy", settings, settings.state_dir / "killed") as replica:
        await replica.publish_durable(unknown_outcome(killed))
    async with pulling(settlement.service.bus, "policy") as pull:
        for message in await pull(1, 30.0):
            await message.done(wait=True)
    assert await swept(settlement, valkey_url) == (200, 0)
    messages = await read_from(
        settlement.service.bus.client, EVENTS, 1, subject_of(CallFailed.NAME, "acme")
    )
    lines = [line for message in messages for line in message.data.split(b"\n")]
    assert sorted(json.loads(line)["id"] for line in lines) == ["r.unknown", "s.unknown"]


async def age(tester: Bus) -> None:
    """Let everything in the stream expire."""
    stream = tester.client.jetstream()
    config = (await stream.stream_info(EVENTS)).config
    config.max_age = 0.2
    config.duplicate_window = 0.1
    await stream.update_stream(config)

    async def gone() -> bool:
        return not (await stream.stream_info(EVENTS)).state.messages

    await until_async(gone, "everything is gone")


async def remake(tester: Bus) -> None:
    """Replace the stream with another of the same name."""
    started = time()

    async def later() -> bool:
        return time() > started + 1  # its age and a reservation's are compared by the second

    await until_async(later, "the second of the reservation is over")
    await tester.client.jetstream().delete_stream(EVENTS)
    await provision(tester)


@pytest.mark.parametrize("lose", [age, remake])
async def test_a_call_whose_intent_may_be_lost_is_charged(
    lose: Callable[[Bus], Any], tmp_path: Path, own_nats: NatsServer, valkey_url: str
) -> None:
    async with losing(tmp_path, own_nats, valkey_url) as (settlement, tester):
        events = settlement.service.events
        await events.publish_durable(allowed(call_id="before"))
        await settlement.ledger.reserve(late("r", await settlement.note_newest()))
        for each in ("r", "other"):
            await events.publish_durable(allowed(call_id=each))
        await lose(tester)
        for number in range(3):
            await events.publish_durable(allowed(call_id=f"later{number}"))
        assert await swept(settlement, valkey_url) == CHARGED


async def test_nothing_is_settled_while_the_bus_is_unreachable(
    tmp_path: Path, own_nats: NatsServer, valkey_url: str
) -> None:
    async with losing(tmp_path, own_nats, valkey_url) as (settlement, _):
        for rid in ("ran", "never"):
            await settlement.ledger.reserve(late(rid))
        await settlement.service.events.publish_durable(allowed(call_id="ran"))
        own_nats.kill()
        for _ in range(3):
            with pytest.raises(BusDownError):
                await settlement.sweep_once()
        assert await amounts(valkey_url) == (0, 200)
        own_nats.start()
        assert await swept(settlement, valkey_url) == CHARGED


async def test_two_sweepers_charge_a_call_once(
    settlement: SettlementConsumer, operator: Bus, valkey_url: str
) -> None:
    other = SettlementConsumer(
        settlement.service, settlement.ledger, settlement.customers, settlement.grace
    )
    for number in range(20):
        await settlement.ledger.reserve(late(f"r{number}"))
        await settlement.service.events.publish_durable(allowed(call_id=f"r{number}"))

    async def ended() -> bool:
        await asyncio.gather(settlement.sweep_once(), other.sweep_once())
        return (await amounts(valkey_url))[1] == 0

    await until_async(ended, "nothing is held")
    assert await amounts(valkey_url) == (2000, 0)
    messages = await read_from(operator.client, EVENTS, 1, "tb.event.call.failed.acme")
    lines = [json.loads(line) for each in messages for line in each.data.splitlines()]
    assert sorted(line["call_id"] for line in lines) == sorted(f"r{n}" for n in range(20))


async def test_an_unknown_outcome_is_published_once_despite_bus_failures(
    settlement: SettlementConsumer, operator: Bus, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settlement.ledger.reserve(late("r"))
    await settlement.service.events.publish_durable(allowed(call_id="r"))
    events = settlement.service.events
    publish, refused = events._publish, list[Envelope]()

    async def shaky(envelope: Envelope) -> None:
        if envelope.subject.startswith("tb.event.call.failed") and not refused:
            refused.append(envelope)
            raise BusDownError("down")
        await publish(envelope)

    monkeypatch.setattr(events, "_publish", shaky)
    assert await swept(settlement, valkey_url) == CHARGED
    assert refused
    stream = await operator.client.jetstream().stream_info("EVENTS", subjects_filter="tb.event.>")
    assert (stream.state.subjects or {})["tb.event.call.failed.acme"] == 1


@asynccontextmanager
async def losing(
    directory: Path, server: NatsServer, valkey_url: str
) -> AsyncIterator[tuple[SettlementConsumer, Bus]]:
    """Run settlement on a bus of its own, with an unrestricted connection."""
    await provisioned(server)
    server.copy_seeds(directory)
    settings = Settings(state_dir=directory, nats_url=server.url, drain_seconds=5.0)
    async with connect_as_tester(server.at) as tester, settling(settings, valkey_url) as settlement:
        yield settlement, tester
