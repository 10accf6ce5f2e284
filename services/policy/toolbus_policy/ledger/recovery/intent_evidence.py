"""Read from the stream whether a call was dispatched, and whether it ended.

Intents decide which expired reservations are charged. A call is dispatched only after the stream
has acknowledged its intent, before the call's deadline. If the stream has the intent of an expired
reservation, the call may have run. If the stream has no intent, the call was not dispatched. If the
stream may have lost the intent, the call may have run.
"""

import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import msgspec

from toolbus_common.contracts import CallAllowed, CallCompleted, CallFailed
from toolbus_common.contracts.events.base import EVERY_EVENT, subject_of
from toolbus_common.nats.connection import Bus, Extent
from toolbus_common.nats.stream_reader import StreamEntry, next_at_leader, read_from
from toolbus_common.nats.topology import EVENTS
from toolbus_policy.ledger.ledger import ExpiredReservation

log = logging.getLogger(__name__)

PAGE = 500  # messages; a page is in memory and decoded without yielding to the event loop
PAGE_BYTES = 1 << 20
OVERLAP = 60.0  # seconds by which clocks may differ


class _CallEvent(msgspec.Struct):
    call_id: str


_event = msgspec.json.Decoder(_CallEvent).decode


async def may_have_run(bus: Bus, customer: str, expired: Sequence[ExpiredReservation]) -> set[str]:
    """Return the ids of the expired calls of one customer that may have run.

    The customer's intents are read once for all these calls, starting at the oldest reservation,
    until all calls are decided. Raises `BusDownError`: then nothing may be refunded.
    """
    found = await _with_intent(bus, customer, expired)
    # Read the extent last: no message was removed before it could be read.
    extent = await bus.extent(EVENTS)
    return found | {late.rid for late in expired if not _would_be_stored(late, extent)}


async def ended_in_stream(bus: Bus, customer: str, calls: Collection[str], at: float) -> set[str]:
    """Return the calls of one customer, all allowed at `at` or later, that have an outcome.

    Raises `BusDownError`.
    """
    since = datetime.fromtimestamp(at - OVERLAP, UTC)
    after = await read_from(bus.client, EVENTS, since, EVERY_EVENT, 1)
    first = after[0].sequence if after else (await bus.extent(EVENTS)).first
    found = set[str]()
    for name in (CallCompleted.NAME, CallFailed.NAME):
        found |= await _named(bus, subject_of(name, customer), first, set(calls) - found)
    return found


async def _with_intent(bus: Bus, customer: str, expired: Sequence[ExpiredReservation]) -> set[str]:
    first = min(late.about.after for late in expired) + 1
    subject = subject_of(CallAllowed.NAME, customer)
    return await _named(bus, subject, first, {late.rid for late in expired})


async def _named(bus: Bus, subject: str, first: int, wanted: set[str]) -> set[str]:
    """Return the wanted calls that messages on a subject name, from sequence `first` on."""
    found = set[str]()
    while found < wanted and (page := await _page(bus, subject, first)):
        for message in page:
            found |= _calls_of(message, wanted)
        first = page[-1].sequence + 1
    return found


async def _page(bus: Bus, subject: str, first: int) -> list[StreamEntry]:
    """Return the next messages. The result is empty only if the leader has no more messages."""
    page = await read_from(bus.client, EVENTS, first, subject, PAGE, PAGE_BYTES)
    if page:
        return page
    # Replicas may lag behind the leader.
    last = await next_at_leader(bus.client, EVENTS, first, subject)
    return [last] if last is not None else []


def _calls_of(message: StreamEntry, wanted: Collection[str]) -> set[str]:
    """Return the wanted calls whose events this message contains."""
    try:
        return {_event(line).call_id for line in message.data.split(b"\n")}.intersection(wanted)
    except msgspec.DecodeError:
        log.error("evidence.unreadable", extra={"stream_seq": message.sequence})  # noqa: TRY400
        return set(wanted)  # the message may contain events of any of them


def _would_be_stored(late: ExpiredReservation, extent: Extent) -> bool:
    """Return whether the stream would still have the intent of this call, if one was stored.

    It would not if messages were removed since the reservation, or if the stream was created, or
    restored from a copy, after the reservation.
    """
    after = late.about.after
    return extent.first <= after + 1 and after <= extent.last and extent.created < late.at + 1
