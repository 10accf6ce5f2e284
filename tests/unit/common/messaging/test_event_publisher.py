"""Events are numbered without gaps, batched by line, and stored until the stream has them."""

import asyncio
import json
from pathlib import Path

import pytest

from harness.waits import PATIENCE, until
from toolbus_common.contracts import CallAllowed, CallDenied
from toolbus_common.errors import BusDownError
from toolbus_common.messaging import event_publisher
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.nats.connection import SPANS, Envelope
from toolbus_common.observability.tracing import INTERNAL, Span


class Stream:
    """A stream that can be down, and signals the arrival of a message."""

    def __init__(self) -> None:
        self.up = True
        self.forgets_to_acknowledge = False
        self.stored: dict[str, Envelope] = {}
        self.tries: list[str] = []
        self.arrived = asyncio.Condition()

    async def __call__(self, envelope: Envelope) -> None:
        self.tries.append(envelope.message_id)
        if not self.up:
            raise BusDownError("down")
        async with self.arrived:
            self.stored.setdefault(envelope.message_id, envelope)
            self.arrived.notify_all()
        if self.forgets_to_acknowledge:
            self.forgets_to_acknowledge = False
            raise BusDownError("lost on the way back")

    async def holds(self, messages: int) -> None:
        async with asyncio.timeout(PATIENCE), self.arrived:
            await self.arrived.wait_for(lambda: len(self.stored) >= messages)

    def lines(self) -> list[dict[str, object]]:
        return [
            json.loads(line)
            for envelope in self.stored.values()
            for line in envelope.payload.split(b"\n")
        ]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_publisher, "RETRY_SECONDS", 0.01)


def writer(stream: Stream, directory: Path, maximum: int = 1 << 20) -> EventPublisher:
    return EventPublisher(stream, Outbox(directory / "events", maximum))


def allowed(call: str, customer: str = "acme") -> CallAllowed:
    return CallAllowed(
        id=f"{call}.allowed", at=1.5, customer=customer, call_id=call, server="git", tool="git_log"
    )


async def test_events_of_one_moment_and_subject_travel_as_one_message(tmp_path: Path) -> None:
    stream = Stream()
    events = writer(stream, tmp_path)
    await asyncio.gather(*(events.publish_durable(allowed(f"c{n}")) for n in range(3)))
    (envelope,) = stream.stored.values()
    assert envelope.subject == "tb.event.call.allowed.acme"
    assert [line["id"] for line in stream.lines()] == ["c0.allowed", "c1.allowed", "c2.allowed"]


async def test_events_of_different_scopes_never_share_a_message(tmp_path: Path) -> None:
    stream = Stream()
    events = writer(stream, tmp_path)
    await asyncio.gather(
        *(events.publish_durable(allowed("c", customer)) for customer in ("acme", "globex"))
    )
    subjects = {envelope.subject for envelope in stream.stored.values()}
    assert subjects == {"tb.event.call.allowed.acme", "tb.event.call.allowed.globex"}


async def test_a_line_names_its_event_its_producer_and_a_number_without_gaps(
    tmp_path: Path,
) -> None:
    stream = Stream()
    events = writer(stream, tmp_path)
    await asyncio.gather(*(events.publish_durable(allowed(f"c{n}")) for n in range(20)))
    denied = CallDenied(
        id="d.denied",
        at=2.0,
        customer="acme",
        call_id="d",
        server="git",
        tool="x",
        code="c",
        reason="r",
    )
    await events.publish_durable(denied)
    lines = stream.lines()
    assert [line["seq"] for line in lines] == list(range(1, 22))
    assert {line["producer"] for line in lines} == {events.producer}
    assert lines[-1]["event"] == "call.denied"
    assert CallDenied.model_validate(lines[-1]) == denied


async def test_an_unacknowledged_event_fails_and_arrives_later_under_the_same_id(
    tmp_path: Path,
) -> None:
    stream = Stream()
    events = writer(stream, tmp_path)
    stream.up = False
    with pytest.raises(BusDownError):
        await events.publish_durable(allowed("c1"))
    stream.up = True
    await stream.holds(1)
    await events.close(5)
    assert len(set(stream.tries)) == 1
    assert [line["id"] for line in stream.lines()] == ["c1.allowed"]


async def test_publishing_until_durable_waits_for_the_stream(tmp_path: Path) -> None:
    stream = Stream()
    stream.up = False
    events = writer(stream, tmp_path)
    insisting = asyncio.create_task(events.publish_until_durable(allowed("c1")))
    await until(lambda: len(stream.tries) > 1, "it was tried again")
    assert not insisting.done()
    stream.up = True
    async with asyncio.timeout(PATIENCE):
        await insisting
    assert [line["id"] for line in stream.lines()] == ["c1.allowed"]


async def test_a_lost_acknowledgement_leaves_one_copy(tmp_path: Path) -> None:
    stream = Stream()
    events = writer(stream, tmp_path)
    stream.forgets_to_acknowledge = True
    with pytest.raises(BusDownError):
        await events.publish_durable(allowed("c1"))
    await events.close(5)
    assert len(stream.tries) >= 2
    assert len(stream.stored) == 1


async def test_undelivered_events_are_delivered_by_the_next_process(tmp_path: Path) -> None:
    down = Stream()
    down.up = False
    events = writer(down, tmp_path)
    for n in range(3):
        with pytest.raises(BusDownError):
            await events.publish_durable(allowed(f"c{n}"))
    await events.close(0.01)
    stream = Stream()
    heir = writer(stream, tmp_path)
    heir.restore()
    await stream.holds(3)
    await heir.close(5)
    assert set(stream.stored) == set(down.tries)
    assert [line["seq"] for line in stream.lines()] == [1, 2, 3]
    assert list(Outbox(tmp_path / "events", 1 << 20).replay()) == []


async def test_a_full_outbox_is_reported_and_emptied_when_the_bus_returns(tmp_path: Path) -> None:
    stream = Stream()
    events = writer(stream, tmp_path, maximum=300)
    stream.up = False
    for n in range(3):
        with pytest.raises(BusDownError):
            await events.publish_durable(allowed(f"c{n}"))
    assert events.full
    stream.up = True
    await stream.holds(3)
    await events.close(5)
    assert not events.full


async def test_publishing_does_not_wait_and_does_not_raise(tmp_path: Path) -> None:
    stream = Stream()
    stream.up = False
    events = writer(stream, tmp_path)
    events.publish(allowed("c1"))
    await events.close(0.01)
    assert len(list(Outbox(tmp_path / "events", 1 << 20).replay())) == 1


async def test_a_message_links_the_recorded_spans_of_its_events(
    tmp_path: Path,
) -> None:
    class NoSink:
        def take(self, _span: Span) -> None:
            """Drop the spans."""

    stream = Stream()
    events = writer(stream, tmp_path)
    parents = [f"00-{number:032x}-00f067aa0ba902b7-01" for number in (1, 2)]
    spans = [Span(NoSink(), "policy", "toolbus.decide", INTERNAL, parent) for parent in parents]
    waiting = [events.publish_durable(allowed("unrecorded"))]
    for span in spans:
        with span:
            waiting.append(events.publish_durable(allowed("recorded")))
    await asyncio.gather(*waiting)
    (envelope,) = stream.stored.values()
    assert envelope.headers[SPANS].split(",") == [span.traceparent for span in spans]
    await events.publish_durable(allowed("another"))
    assert set(list(stream.stored.values())[-1].headers) == {"Nats-Msg-Id"}
