"""Handlers of queries and events on a service's broker, on FastStream's test broker."""

from typing import Any, cast

import msgspec
import pytest
from faststream import StreamMessage
from faststream.nats import NatsBroker, TestNatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg

from toolbus_common.contracts import PageReply, PageRequest, SpendingQuery, SpendingReply
from toolbus_common.errors import ToolbusError, UnavailableError
from toolbus_common.messaging import broker as broker_module
from toolbus_common.messaging.broker import (
    AckPolicy,
    EventBatch,
    ServiceBroker,
)
from toolbus_common.nats.connection import Bus

INBOX = "_INBOX.policy.1"
SPENDING = SpendingQuery(customer="acme", start=1.0, end=2.0)


class Delivered(Msg):
    """A message that notes its acknowledgement."""

    def __init__(self, subject: str, data: bytes, reply: str) -> None:
        super().__init__(cast("Client", None), subject, reply, data)
        self.noted: list[tuple[str, float]] = []

    async def ack(self) -> None:
        self._ackd = True
        self.noted.append(("ack", 0.0))

    async def nak(self, delay: float | None = None) -> None:
        self._ackd = True
        self.noted.append(("nak", delay or 0.0))


def event(sequence: int) -> Delivered:
    reply = f"$JS.ACK.EVENTS.policy.1.{sequence}.1.1763708342.0"
    return Delivered("tb.event.call.completed.acme", b'{"event":"call.completed"}', reply)


@pytest.fixture
def broker() -> ServiceBroker:
    return ServiceBroker(Bus("audit", "nats://127.0.0.1:9"))


async def reply_to(broker: ServiceBroker, query: Any) -> bytes:
    """Return what the service publishes to the reply subject of a query."""
    replies: list[bytes] = []
    requester = NatsBroker()

    async def body(message: StreamMessage[Msg]) -> Any:
        return message.body

    @requester.subscriber(INBOX, decoder=body)
    async def receive(reply: bytes) -> None:
        replies.append(reply)

    async with TestNatsBroker(broker, requester):
        await broker.publish(query, query.SUBJECT, reply_to=INBOX)
    return replies[0]


async def test_a_handler_gets_the_query_of_its_subject_and_returns_the_reply(
    broker: ServiceBroker,
) -> None:
    received: list[SpendingQuery] = []

    @broker.subscriber(SpendingQuery.SUBJECT, queue="audit")
    async def spent(query: SpendingQuery) -> SpendingReply:
        received.append(query)
        return SpendingReply(rows=(("a", 1),), since=0.5)

    reply = SpendingReply.decode(await reply_to(broker, SPENDING))
    assert received == [SPENDING]
    assert reply == SpendingReply(rows=(("a", 1),), since=0.5)


async def test_bodies_of_a_query_and_its_reply_are_not_decoded(broker: ServiceBroker) -> None:
    @broker.subscriber(PageRequest.SUBJECT, queue="oauth", max_workers=2)
    async def page(request: PageRequest) -> PageReply:
        return PageReply(status=200, body=request.body + b"\xff\n")

    request = PageRequest(method="POST", path="/", body=b"\x00\n\xfe")
    assert PageReply.decode(await reply_to(broker, request)).body == b"\x00\n\xfe\xff\n"


async def test_an_error_of_a_handler_is_the_reply(broker: ServiceBroker) -> None:
    @broker.subscriber(SpendingQuery.SUBJECT, queue="audit")
    async def spent(_query: SpendingQuery) -> SpendingReply:
        raise UnavailableError("The store is down.")

    reply = await reply_to(broker, SPENDING)
    error = ToolbusError.from_data(msgspec.json.decode(reply.removeprefix(b"!")))
    assert isinstance(error, UnavailableError)
    assert error.reason == "The store is down."


async def test_details_of_an_unexpected_error_are_not_in_the_reply(broker: ServiceBroker) -> None:
    @broker.subscriber(SpendingQuery.SUBJECT, queue="audit")
    async def spent(_query: SpendingQuery) -> SpendingReply:
        raise RuntimeError("secret")

    reply = await reply_to(broker, SPENDING)
    assert msgspec.json.decode(reply.removeprefix(b"!")) == {
        "code": "internal",
        "reason": "Internal error; the log of the service has the details.",
        "data": {},
    }


@pytest.mark.parametrize("reply", ["", "$KV.tb_oauth.evil", "tb.query.oauth.identity"])
async def test_a_query_with_another_reply_subject_is_not_handled(
    broker: ServiceBroker, reply: str
) -> None:
    subscriber = broker.subscriber(SpendingQuery.SUBJECT, queue="audit")

    @subscriber
    async def spent(_query: SpendingQuery) -> SpendingReply:
        raise AssertionError

    async with TestNatsBroker(broker):
        message = Delivered(SpendingQuery.SUBJECT, SPENDING.encode(), reply)
        assert (await subscriber.process_message(message)).body is None


async def test_a_handled_batch_is_acknowledged(broker: ServiceBroker) -> None:
    received: list[tuple[int, bytes]] = []
    subscriber = broker.events("policy")

    @subscriber
    async def settle(messages: EventBatch) -> None:
        received.extend((message.sequence, message.data) for message in messages)

    batch: list[Msg] = [event(7), event(8)]
    async with TestNatsBroker(broker):
        await subscriber.consume(batch)
    assert received == [(7, batch[0].data), (8, batch[1].data)]
    assert [each.noted for each in cast("list[Delivered]", batch)] == [[("ack", 0.0)]] * 2


@pytest.mark.parametrize("policy", [AckPolicy.MANUAL, AckPolicy.NACK_ON_ERROR])
async def test_what_a_failed_batch_has_not_acknowledged_is_delivered_again_later(
    broker: ServiceBroker, policy: AckPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "AGAIN_SECONDS", 0.01)
    subscriber = broker.events("policy", ack_policy=policy)

    @subscriber
    async def settle(messages: EventBatch) -> None:
        await messages[0].done()
        raise RuntimeError

    batch: list[Msg] = [event(7), event(8)]
    async with TestNatsBroker(broker):
        await subscriber.consume(batch)
    noted = [each.noted for each in cast("list[Delivered]", batch)]
    assert noted == [[("ack", 0.0)], [("nak", 0.01)]]


async def test_a_batch_acknowledged_by_its_handler_is_left_alone(broker: ServiceBroker) -> None:
    subscriber = broker.events("audit", ack_policy=AckPolicy.MANUAL)

    @subscriber
    async def write(messages: EventBatch) -> None:
        assert len(messages) == 1

    message = event(7)
    async with TestNatsBroker(broker):
        await subscriber.consume([message])
    assert message.noted == []
