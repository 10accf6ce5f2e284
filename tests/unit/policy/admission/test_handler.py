"""Admission of a call whose caller's task ends while the call is being admitted."""

import asyncio
from time import time
from types import SimpleNamespace
from typing import Any, cast

from harness.builders.calls import requested_call
from harness.builders.configurations import listing_of
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallError, CallFailed, OutcomeClaim, ReplyMessage
from toolbus_common.errors import BusDownError, LedgerDownError
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.admission.handler import AdmissionHandler
from toolbus_policy.approvals.elicitation import STATE_PREFIX
from toolbus_policy.flow.follower import FlowFollower

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


def authorizer() -> Authorizer:
    """Return an authorizer of one key with a budget and one tool."""
    key = {
        "tools": ["*"],
        "secret_hash": hash_of(KEY_DIGEST),
        "budget": {"calls": 5, "per": "day"},
    }
    declared = {"servers": {"docs": {"url": "http://127.0.0.1:1/mcp"}}, "keys": {"bot": key}}
    snapshot = ConfigSnapshot.of(Configuration.model_validate(declared))
    return Authorizer(snapshot, {"docs": listing_of("docs", "search")})


class Parts:
    """The parts of policy that a handler needs. Every reservation and every intent waits."""

    def __init__(self) -> None:
        self.events = SlowEvents()
        self.reserving = asyncio.Event()
        self.released: list[OutcomeClaim] = []
        self.undoing: list[asyncio.Task[None]] = []
        self.newest = 0

    def handler(self, approvals: Any = None) -> AdmissionHandler:
        """Return a handler over these parts."""
        service = SimpleNamespace(events=self.events, calls=self)
        found = authorizer()
        return AdmissionHandler(
            cast("Any", service),
            lambda: found,
            cast("Any", self),
            approvals,
            cast("Any", self),
            5.0,
            cast("Any", None),
            FlowFollower(cast("Any", None), cast("Any", None)),
        )

    def spawn(self, work: Any) -> None:
        """Run work in a task, as the call transport does."""
        self.undoing.append(asyncio.ensure_future(work))

    async def reserve(self, _request: Any) -> None:
        """Wait for ever."""
        self.reserving.set()
        await asyncio.Event().wait()

    async def claim(self, *_given: Any) -> OutcomeClaim:
        """Claim the idempotency key."""
        return OutcomeClaim(name="once", revision=1, digest="")

    async def release(self, _call: Any, claim: OutcomeClaim) -> None:
        """Record the release of a claim."""
        self.released.append(claim)


def requested(**more: Any) -> Any:
    deadline = time() + 3600
    return requested_call(
        server="docs", tool="search", key_digest=KEY_DIGEST, deadline=deadline, **more
    )


async def test_a_call_cancelled_while_it_reserves_releases_its_idempotency_key() -> None:
    parts = Parts()
    admitting = asyncio.ensure_future(
        parts.handler().handle(requested(idempotency_key="once"), Discard())
    )
    await parts.reserving.wait()
    admitting.cancel()
    await asyncio.wait([admitting])
    assert admitting.cancelled()
    await asyncio.gather(*parts.undoing)
    assert [claim.name for claim in parts.released] == ["once"]


async def test_a_call_gets_its_own_error_if_its_approval_cannot_be_restored() -> None:
    async def unreachable(*_given: Any) -> None:
        raise BusDownError("The bucket of approvals is unreachable.")

    async def without_ledger(_request: Any) -> None:
        raise LedgerDownError("The ledger is unreachable.")

    async def approve(call: Any, *_given: Any) -> Any:
        return SimpleNamespace(call=call, approval="a1")

    parts = Parts()
    parts.reserve = without_ledger  # type: ignore[method-assign]
    approvals = SimpleNamespace(check=approve, restore=unreachable)
    extra = f'{{"requestState":"{STATE_PREFIX}x"}}'
    reply = await parts.handler(approvals).handle(requested(extra=extra), Discard())
    assert isinstance(reply, CallError)
    assert reply.error.reason == "The ledger is unreachable."


async def test_a_call_cancelled_before_its_intent_is_stored_ends_as_not_dispatched() -> None:
    parts, call = Parts(), requested()

    async def reserved(_request: Any) -> None:
        """Reserve at once."""

    parts.reserve = reserved  # type: ignore[method-assign]
    admitting = asyncio.ensure_future(parts.handler().handle(call, Discard()))
    await parts.events.storing.wait()
    admitting.cancel()
    await asyncio.wait([admitting])
    assert admitting.cancelled()
    (outcome,) = parts.events.published
    assert isinstance(outcome, CallFailed)
    assert (outcome.call_id, outcome.sent, outcome.reserved) == (call.call_id, False, True)
