"""Decide by the intents in the stream which expired reservations are charged.

A call is dispatched only after the stream has acknowledged its intent, before the call's deadline.
If the stream has the intent of an expired reservation, the call may have run. If the stream has no
intent, the call was not dispatched. If the stream may have lost the intent, the call may have run.
"""

import logging
from collections.abc import Collection, Sequence

import msgspec

from toolbus_common.contracts import CallAllowed
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.nats.connection import Bus, Extent
from toolbus_common.nats.stream_reader import StreamEntry, next_at_leader, read_from
from toolbus_common.nats.topology import EVENTS
from toolbus_policy.ledger.ledger import ExpiredReservation

log = logging.getLogger(__name__)

PAGE = 500  # messages; a page is in memory and decoded without yielding to the event loop
PAGE_BYTES = 1 << 20


class _Intent(msgspec.Struct):
    call_id: str


_intent = msgspec.json.Decoder(_Intent).decode


async def may_have_run(bus: Bus, customer: str, expired: Sequence[ExpiredReservation]) -> set[str]:
    """Return the ids of the expired calls of one customer that may have run.

    The customer's intents are read once for all these calls, starting at the oldest reservation,
    until all calls are decided. Raises `BusDownError`: then nothing may be refunded.
    """
    found = await _with_intent(bus, customer, expired)
    # Read the extent last: no message was removed before it could be read.
    extent = await bus.extent(EVENTS)
    return found | {late.rid for late in expired if not _would_be_stored(late, extent)}


async def _with_intent(bus: Bus, customer: str, expired: Sequence[ExpiredReservation]) -> set[str]:
    wanted, found = {late.rid for late in expired}, set[str]()
    first = min(late.about.after for late in expired) + 1
    while found < wanted and (page := await _page(bus, customer, first)):
        for message in page:
            found |= _calls_of(message, wanted)
        first = page[-1].sequence + 1
    return found


async def _page(bus: Bus, customer: str, first: int) -> list[StreamEntry]:
    """Return the next intents. The result is empty only if the leader has no more intents."""
    subject = subject_of(CallAllowed.NAME, customer)
    page = await read_from(bus.client, EVENTS, first, subject, PAGE, PAGE_BYTES)
    if page:
        return page
    # Replicas may lag behind the leader.
    last = await next_at_leader(bus.client, EVENTS, first, subject)
    return [last] if last is not None else []


def _calls_of(message: StreamEntry, wanted: Collection[str]) -> set[str]:
    """Return the wanted calls whose intents this message contains."""
    try:
        return {_intent(line).call_id for line in message.data.split(b"\n")}.intersection(wanted)
    except msgspec.DecodeError:
        log.error("evidence.unreadable", extra={"stream_seq": message.sequence})  # noqa: TRY400
        return set(wanted)  # the message may contain any of the wanted intents


def _would_be_stored(late: ExpiredReservation, extent: Extent) -> bool:
    """Return whether the stream, as it is now, would have an intent of this call.

    It would not if messages were removed since the reservation, or if the stream was created or
    restored from a copy after it.
    """
    after = late.about.after
    return extent.first <= after + 1 and after <= extent.last and extent.created < late.at + 1
