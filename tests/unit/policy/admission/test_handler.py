"""Admission of a call whose caller's task ends while the call is being admitted."""

import asyncio
from time import time
from types import SimpleNamespace
from typing import Any, cast

from harness.builders.calls import requested_call
from harness.builders.configurations import listing_of
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallFailed, ReplyMessage
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.admission.handler import AdmissionHandler

KEY_DIGEST = key_digest_of("tbk_bot_0123456789abcdef")


class SlowEvents:
    """Events whose durable storage does not end."""

    full = False

    def __init__(self) -> None:
        self.storing = asyncio.Event()
        self.published: list[Any] = []

    def publish_durable(self, _event: Any) -> asyncio.Future[None]:
        self.storing.set()
        return asyncio.get_running_loop().create_future()

    def publish(self, event: Any) -> None:
        self.published.append(event)


class Discard:
    """The context of a call that discards every message."""

    async def send(self, message: ReplyMessage) -> None:
        """Discard the message."""


async def test_a_call_cancelled_before_its_intent_is_stored_ends_as_not_dispatched() -> None:
    key = {"tools": ["*"], "secret_hash": hash_of(KEY_DIGEST)}
    declared = {"servers": {"docs": {"url": "http://127.0.0.1:1/mcp"}}, "keys": {"bot": key}}
    snapshot = ConfigSnapshot.of(Configuration.model_validate(declared))
    authorizer = Authorizer(snapshot, {"docs": listing_of("docs", "search")})
    events = SlowEvents()
    unused = cast("Any", None)
    handler = AdmissionHandler(
        cast("Any", SimpleNamespace(events=events)), lambda: authorizer, unused, unused, unused, 5.0
    )
    call = requested_call(
        server="docs", tool="search", key_digest=KEY_DIGEST, deadline=time() + 3600
    )
    admitting = asyncio.ensure_future(handler.handle(call, Discard()))
    await events.storing.wait()
    admitting.cancel()
    await asyncio.wait([admitting])
    assert admitting.cancelled()
    (outcome,) = events.published
    assert isinstance(outcome, CallFailed)
    assert (outcome.call_id, outcome.sent, outcome.charge) == (call.call_id, False, 0)
