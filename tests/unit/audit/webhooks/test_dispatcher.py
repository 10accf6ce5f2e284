"""Webhooks over real HTTP: signing, delivery at least once, independence of each other."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from harness.audit.people_bucket import MemoryBucket, people
from harness.receivers.webhook_receiver import Receiver, webhook_secret
from harness.waits import until
from toolbus_audit.delivery.webhook_poster import WebhookPoster
from toolbus_audit.webhooks.dispatcher import WebhookDispatcher
from toolbus_audit.webhooks.signing import NoSecretError, headers_of, signers_of
from toolbus_common.concurrency import end
from toolbus_common.config import Webhook
from toolbus_common.egress import Allowed, Egress, Target
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.nats.connection import StoredMessage
from toolbus_common.secrets import Secrets, stores_of

SECRET = webhook_secret("a secret of the receiver's")
OTHER = webhook_secret("another secret of receivers")
SECRETS = Secrets(stores_of({"HOOK": SECRET, "NEXT": OTHER}))
AT_LOOPBACK = Egress(Allowed.of("127.0.0.0/8"))
POSTER = WebhookPoster(HttpClient(CheckedResolver(AT_LOOPBACK)), lambda _: False)


class Stream:
    """Messages like those of the bus; `acknowledged` holds the acknowledged sequences."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self._queue: asyncio.Queue[list[StoredMessage]] = asyncio.Queue()

    def publish(self, sequence: int, *events: dict[str, Any]) -> None:
        lines = b"\n".join(json.dumps(event).encode() for event in events)
        message = StoredMessage("tb.event.x", lines, sequence, 1, 0, cast("Any", self))
        object.__setattr__(message, "source", _Source(self, sequence))
        self._queue.put_nowait([message])

    async def batches(self) -> AsyncIterator[list[StoredMessage]]:
        while True:
            yield await self._queue.get()


class _Source:
    def __init__(self, stream: Stream, sequence: int) -> None:
        self._stream, self._sequence = stream, sequence

    async def ack(self) -> None:
        self._stream.acknowledged.append(self._sequence)


def event(number: int, kind: str = "approval.requested", **more: Any) -> dict[str, Any]:
    return {"event": kind, "id": f"a{number}.requested", "at": time.time(), "tool": "burn", **more}


class RunningDispatcher:
    """A dispatcher that consumes `stream` while the context is open."""

    def __init__(self, hooks: dict[str, Webhook], reveal: Callable[[str], str] = str) -> None:
        self.stream = Stream()
        self.hooks = hooks
        self.webhooks = WebhookDispatcher(lambda: self.hooks, POSTER.post, SECRETS, 0.05, reveal)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task)
        await self.webhooks.close()

    async def _run(self) -> None:
        async for messages in self.stream.batches():
            await self.webhooks.receive(messages)


def hook(receiver: Receiver, **more: Any) -> Webhook:
    return Webhook.model_validate({"url": receiver.url, "secret": "${env:HOOK}", **more})


async def test_an_event_is_posted_signed_and_then_acknowledged() -> None:
    with Receiver() as receiver:
        async with RunningDispatcher({"ops": hook(receiver)}) as running:
            running.stream.publish(1, event(1), event(2, "approval.used"))
            await until(lambda: running.stream.acknowledged == [1], "the acknowledgement")
        (result,) = receiver.received
    assert result.signed_with(SECRET)
    assert not result.signed_with(OTHER)
    assert result.headers["webhook-id"] == "a1.requested"
    assert abs(int(result.headers["webhook-timestamp"]) - time.time()) < 60
    assert result.json["type"] == "approval.requested"
    assert result.json["data"]["tool"] == "burn"


SELECTED: dict[str, tuple[dict[str, Any], list[list[dict[str, Any]]], list[str]]] = {
    "by event": (
        {"events": ["key.*"]}, [[event(1)], [event(2, "key.revoked")]], ["a2.requested"],
    ),
    "by customer": (
        {"customers": ["acme"]},
        [[event(1, customer="bolt"), event(2, customer="acme")], [event(3, customer="bolt")]],
        ["a2.requested"],
    ),
    "without unreadable lines": ({}, [[{"event": 7}, {"at": 1.0}, event(1)]], ["a1.requested"]),
}  # fmt: skip


@pytest.mark.parametrize(("selection", "messages", "received"), SELECTED.values(), ids=SELECTED)
async def test_selected_events_are_delivered_and_every_message_is_acknowledged(
    selection: dict[str, Any], messages: list[list[dict[str, Any]]], received: list[str]
) -> None:
    sequences = list(range(1, len(messages) + 1))
    with Receiver() as receiver:
        async with RunningDispatcher({"ops": hook(receiver, **selection)}) as running:
            for sequence, events in zip(sequences, messages, strict=True):
                running.stream.publish(sequence, *events)
            await until(lambda: sorted(running.stream.acknowledged) == sequences, "every message")
        assert [each.headers["webhook-id"] for each in receiver.received] == received


async def test_a_webhook_receives_personal_data_in_plain_text(tmp_path: Path) -> None:
    book = people(tmp_path, MemoryBucket())
    await book.learn(["user:ann"])
    sealed = event(
        1, user=book.pseudonym("user:ann"), arguments=book.seal("user:ann", '{"q": "a"}')
    )
    with Receiver() as receiver:
        async with RunningDispatcher({"ops": hook(receiver)}, book.reveal) as running:
            running.stream.publish(1, sealed)
            await until(lambda: running.stream.acknowledged == [1], "the acknowledgement")
        (result,) = receiver.received
    assert (result.json["data"]["user"], result.json["data"]["arguments"]) == ("ann", '{"q": "a"}')
    assert result.signed_with(SECRET)


async def test_events_are_delivered_after_the_receiver_recovers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = Receiver()  # not started: every delivery fails
    async with RunningDispatcher({"ops": hook(receiver)}) as running:
        running.stream.publish(1, event(1))
        running.stream.publish(2, event(2))
        await until(lambda: "webhook.failed" in caplog.messages, "the log event")
        assert running.stream.acknowledged == []
        with receiver:
            await until(lambda: running.stream.acknowledged == [1, 2], "both")
    ids = [each.headers["webhook-id"] for each in receiver.received]
    assert ids == ["a1.requested", "a2.requested"]


async def test_a_failing_webhook_does_not_delay_the_others() -> None:
    with Receiver() as good, Receiver() as bad:
        bad.status = 500
        async with RunningDispatcher({"bad": hook(bad), "good": hook(good)}) as running:
            for number in range(20):
                running.stream.publish(number, event(number))
            await until(lambda: len(good.received) == 20, "the good receiver")
            assert running.stream.acknowledged == []
            bad.status = 200
            await until(lambda: len(running.stream.acknowledged) == 20, "the bad receiver")
    assert len(good.received) == 20, "an event was delivered twice"


async def test_a_message_redelivered_during_delivery_is_delivered_once() -> None:
    receiver = Receiver()  # not started: every delivery fails
    async with RunningDispatcher({"ops": hook(receiver)}) as running:
        running.stream.publish(1, event(1))
        running.stream.publish(1, event(1))
        with receiver:
            await until(lambda: running.stream.acknowledged == [1], "the acknowledgement")
    assert len(receiver.received) == 1


async def test_redirects_are_not_followed() -> None:
    with Receiver() as elsewhere, Receiver() as receiver:
        receiver.status, receiver.location = 307, elsewhere.url
        async with RunningDispatcher({"ops": hook(receiver)}) as running:
            running.stream.publish(1, event(1))
            await until(lambda: len(receiver.received) >= 2, "another try")
        assert elsewhere.received == []
        assert running.stream.acknowledged == []


async def test_delivery_waits_until_the_secret_is_available(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Receiver() as receiver:
        missing = hook(receiver, secret="${env:NOT_THERE}")
        async with RunningDispatcher({"ops": missing}) as running:
            running.stream.publish(1, event(1))
            await until(lambda: "webhook.failed" in caplog.messages, "the log event")
            assert (receiver.received, running.stream.acknowledged) == ([], [])
            running.hooks = {"ops": hook(receiver)}
            await until(lambda: running.stream.acknowledged == [1], "the acknowledgement")
    assert [each.signed_with(SECRET) for each in receiver.received] == [True]


async def test_a_removed_webhook_no_longer_delays_acknowledgement(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = Receiver()  # not started: every delivery fails
    async with RunningDispatcher({"ops": hook(receiver)}) as running:
        running.stream.publish(1, event(1))
        await until(lambda: "webhook.failed" in caplog.messages, "the log event")
        running.hooks = {}
        await until(lambda: running.stream.acknowledged == [1], "the acknowledgement")


async def test_an_event_older_than_a_day_is_not_retried() -> None:
    receiver = Receiver()  # not started: every delivery fails
    async with RunningDispatcher({"ops": hook(receiver)}) as running:
        running.stream.publish(1, event(1, at=time.time() - 2 * 86_400))
        await until(lambda: running.stream.acknowledged == [1], "the acknowledgement")


def poster(address: str, *, named: bool = False) -> WebhookPoster:
    """Return a poster whose resolver returns this address for every name."""

    def resolve_to(_target: Target) -> list[str]:
        return [address]

    resolver = CheckedResolver(AT_LOOPBACK, tls_to_public=True, lookup=resolve_to)
    return WebhookPoster(HttpClient(resolver), lambda _: named)


def at(url: str) -> Webhook:
    return Webhook(url=url, secret=SECRET)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
async def test_a_public_address_requires_https(address: str) -> None:
    with pytest.raises(HttpError, match="use https"):
        await poster(address, named=True).post(at("http://hook.example/"), b"", {})


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0", "10.0.0.1", "::ffff:10.0.0.1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_unlisted_address_is_not_posted_to(scheme: str, address: str) -> None:
    with pytest.raises(HttpError, match="TOOLBUS_EGRESS_ALLOW"):
        await poster(address).post(at(f"{scheme}://hook.example/"), b"", {})


async def test_the_operators_own_webhook_may_have_a_private_address() -> None:
    with Receiver() as receiver:
        strict = HttpClient(CheckedResolver(Egress()))
        await WebhookPoster(strict, lambda hook: hook.url == receiver.url).post(
            at(receiver.url), b"{}", {}
        )
    assert len(receiver.received) == 1


async def test_the_checked_address_is_the_one_connected_to() -> None:
    with Receiver() as receiver:
        port = urlsplit(receiver.url).port
        await poster("127.0.0.1").post(at(f"http://hook.example:{port}/x"), b"{}", {})
    (result,) = receiver.received
    assert result.headers["host"] == f"hook.example:{port}"


def test_the_signature_matches_the_specifications_example() -> None:
    signers = signers_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    result = headers_of(signers, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert result["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "secret",
    [
        "", " ", "whsec_not-base64!", "whsec_", webhook_secret("secret"), webhook_secret("s" * 65),
        SECRET.removeprefix("whsec_"), f"{SECRET} secret", SECRET[:-1],
    ],
)  # fmt: skip
def test_an_invalid_secret_is_rejected_without_being_shown(secret: str) -> None:
    with pytest.raises(NoSecretError) as caught:
        signers_of(secret)
    form = "whsec_ and the Base64 of 24 to 64 bytes"
    empty = f"its secret is empty; it must be {form}"
    assert str(caught.value) == (f"its secret is not {form}" if secret.strip() else empty)
    words = [each.removeprefix("whsec_") for each in secret.split()]
    assert not any(word in str(caught.value) for word in words if word not in ("", "secret"))


async def test_while_a_secret_is_rotated_receivers_of_both_verify_with_the_library() -> None:
    with Receiver() as receiver:
        rotated = hook(receiver, secret="${env:NEXT} ${env:HOOK}")
        async with RunningDispatcher({"ops": rotated}) as running:
            running.stream.publish(1, event(1))
            await until(lambda: running.stream.acknowledged == [1], "the acknowledgement")
        (result,) = receiver.received
    assert len(result.headers["webhook-signature"].split(" ")) == 2
    for secret in (OTHER, SECRET):
        found = Verifier(secret).verify(result.body, result.headers)
        assert found["data"]["id"] == "a1.requested"
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook_secret("a secret of another sender")).verify(result.body, result.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(result.body + b" ", result.headers)


def test_call_events_cannot_be_selected_for_delivery() -> None:
    with pytest.raises(ValidationError, match="are not sent to webhooks"):
        Webhook.model_validate({"url": "https://a.example", "secret": SECRET, "events": ["call.*"]})
