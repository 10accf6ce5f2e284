"""Decide by the intents in the stream which expired reservations are charged.

A call is handed over only after the stream acknowledged its intent, before the call's deadline. So
an expired reservation whose intent is in the stream belongs to a call that may have run; one
without an intent never reached an executor. Where the stream can no longer show the intent, the
call may have run too.
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
    """Return the ids of those calls of one customer that may have run.

    The customer's intents are read once for all of them, from the oldest reservation on, and no
    further than needed. Raises `BusDownError`: then nothing may be refunded.
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
    """Return the next intents; none only when the stream's leader has none either."""
    subject = subject_of(CallAllowed.NAME, customer)
    page = await read_from(bus.client, EVENTS, first, subject, PAGE, PAGE_BYTES)
    if page:
        return page
    last = await next_at_leader(
        bus.client, EVENTS, first, subject
    )  # replicas may lag behind the leader
    return [last] if last is not None else []


def _calls_of(message: StreamEntry, wanted: Collection[str]) -> set[str]:
    """Return those wanted calls whose intents this message has."""
    try:
        return {_intent(line).call_id for line in message.data.split(b"\n")}.intersection(wanted)
    except msgspec.DecodeError:
        log.error("evidence.unreadable", extra={"stream_seq": message.sequence})  # noqa: TRY400
        return set(wanted)  # any of their intents may be in the message


def _would_be_stored(late: ExpiredReservation, extent: Extent) -> bool:
    """Return whether an intent of this call would be in the stream as it is now.

    It would not if the stream removed messages since the reservation, or was created or restored
    from a copy after it.
    """
    after = late.about.after
    return extent.first <= after + 1 and after <= extent.last and extent.created < late.at + 1
