"""Checkpoints sent to webhooks over HTTP: the latest of each customer, at least once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from harness.audit.people_bucket import MemoryBucket
from harness.receivers.webhook_receiver import Receiver, webhook_secret
from harness.waits import until
from toolbus_audit.delivery.webhook_poster import WebhookPoster
from toolbus_audit.transparency_log.log_signer import Log
from toolbus_audit.transparency_log.webhook_notifier import WebhookNotifier
from toolbus_common.config import Webhook
from toolbus_common.egress import Allowed, Egress
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.secrets import Secrets, stores_of

SECRET = webhook_secret("a secret of the receiver's")
SECRETS = Secrets(stores_of({"HOOK": SECRET}))
CLIENT = HttpClient(CheckedResolver(Egress(Allowed.of("127.0.0.0/8"))))
POSTER = WebhookPoster(CLIENT, lambda _: False)


def signed(size: int) -> Log:
    return Log(stream="17", to=size, size=size, at=1_800_000_000, note=f"note {size}\n")


def hook(receiver: Receiver, **more: Any) -> Webhook:
    fields = {"url": receiver.url, "secret": "${env:HOOK}", "events": ["checkpoint.signed"]}
    return Webhook.model_validate({**fields, **more})


@asynccontextmanager
async def announcing(
    hooks: dict[str, Webhook], kept: MemoryBucket
) -> AsyncIterator[WebhookNotifier]:
    made = WebhookNotifier(lambda: hooks, POSTER.post, SECRETS, cast("Bucket", kept), 0.05)
    try:
        yield made
    finally:
        await made.close()


async def test_a_checkpoint_is_posted_signed_to_the_customers_webhooks() -> None:
    with Receiver() as auditor, Receiver() as other:
        hooks = {
            "auditor": hook(auditor, customers=["acme"]),
            "other": hook(other, events=["approval.*"]),
        }
        kept = MemoryBucket()
        async with announcing(hooks, kept) as result:
            result.offer([("bolt", signed(9)), ("acme", signed(3))])
            await until(lambda: "delivered.auditor.acme" in kept.entries)
        (received,) = auditor.received
        assert received.signed_with(SECRET)
        assert received.json["type"] == "checkpoint.signed"
        assert received.json["data"]["note"] == "note 3\n"
        assert (received.json["data"]["customer"], other.received) == ("acme", [])


async def test_while_a_webhook_is_down_a_newer_checkpoint_replaces_the_older() -> None:
    with Receiver() as receiver:
        receiver.status = 503
        kept = MemoryBucket()
        async with announcing({"auditor": hook(receiver)}, kept) as result:
            result.offer([("acme", signed(1))])
            await until(lambda: bool(receiver.received))
            result.offer([("acme", signed(2))])
            result.offer([("acme", signed(3))])
            receiver.status = 204
            await until(lambda: "delivered.auditor.acme" in kept.entries)
        assert receiver.received[-1].json["data"]["size"] == 3


async def test_after_a_restart_only_undelivered_checkpoints_are_sent() -> None:
    with Receiver() as receiver:
        hooks, kept = {"auditor": hook(receiver)}, MemoryBucket()
        async with announcing(hooks, kept) as result:
            result.offer([("acme", signed(1))])
            await until(lambda: "delivered.auditor.acme" in kept.entries)
        first = dict(kept.entries)
        async with announcing(hooks, kept) as result:
            # As a signer offers its last ones again after a restart.
            result.offer([("acme", signed(1))])
            result.offer([("acme", signed(2))])
            await until(lambda: kept.entries != first)
        sizes = [each.json["data"]["size"] for each in receiver.received]
        assert sizes in ([1, 2], [1, 1, 2])


async def test_a_removed_webhook_receives_nothing_more() -> None:
    with Receiver() as receiver:
        receiver.status = 503
        hooks = {"auditor": hook(receiver)}
        async with announcing(hooks, MemoryBucket()) as result:
            result.offer([("acme", signed(1))])
            await until(lambda: bool(receiver.received))
            hooks.clear()
            working = list(result._newest._tasks.values())
            async with asyncio.timeout(60):
                await asyncio.gather(*working)
