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
from toolbus_policy.ledger.ledger import Overdue

log = logging.getLogger(__name__)

PAGE = 500  # messages; a page is held in memory and decoded in one turn of the event loop
PAGE_BYTES = 1 << 20


class _Intent(msgspec.Struct):
    call_id: str


_intent = msgspec.json.Decoder(_Intent).decode


async def may_have_run(bus: Bus, customer: str, overdue: Sequence[Overdue]) -> set[str]:
    """Return the ids of those calls of one customer that may have run.

    The customer's intents are read once for all of them, from the oldest reservation on, and no
    further than needed. Raises `BusDownError`: then nobody knows, and nothing may be refunded.
    """
    found = await _with_intent(bus, customer, overdue)
    # After the reading: what it did not see had not been removed before.
    extent = await bus.extent(EVENTS)
    return found | {late.rid for late in overdue if not _shown(late, extent)}


async def _with_intent(bus: Bus, customer: str, overdue: Sequence[Overdue]) -> set[str]:
    wanted, found = {late.rid for late in overdue}, set[str]()
    first = min(late.about.after for late in overdue) + 1
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
    last = await next_at_leader(bus.client, EVENTS, first, subject)  # replicas may lag behind it
    return [last] if last is not None else []


def _calls_of(message: StreamEntry, wanted: Collection[str]) -> set[str]:
    """Return those wanted calls whose intents this message has."""
    try:
        return {_intent(line).call_id for line in message.data.split(b"\n")}.intersection(wanted)
    except msgspec.DecodeError:
        log.error("evidence.unreadable", extra={"stream_seq": message.sequence})  # noqa: TRY400
        return set(wanted)  # any of them may be in it


def _shown(late: Overdue, extent: Extent) -> bool:
    """Whether an intent of this call would be in the stream as it is now.

    It would not if the stream removed messages since the reservation, or was made or restored
    from a copy after it.
    """
    after = late.about.after
    return extent.first <= after + 1 and after <= extent.last and extent.created < late.at + 1
