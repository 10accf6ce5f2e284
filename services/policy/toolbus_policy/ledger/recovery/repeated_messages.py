"""Messages of the stream that audit's tables do not have because their events are stored already.

An event can be in the stream twice: its publisher sends it again when no acknowledgement arrives,
and the server recognizes a message only for two minutes. The tables keep one row of each event, so
they lose the position of the other message. Such a message is not missing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from toolbus_common.contracts import SpendingQuery, SpendingReply
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.stream_reader import Contents, StreamEntry, read_from, read_on
from toolbus_common.nats.topology import EVENTS

PAGE = 500  # messages that are compared one by one
IDS_AT_ONCE = 5_000
Request = Callable[[SpendingQuery], Awaitable[SpendingReply]]


class _Identified(msgspec.Struct):
    id: str


_event = msgspec.json.Decoder(_Identified).decode


class MessageMissingError(Exception):
    """The tables lack an event of this message."""

    def __init__(self, sequence: int) -> None:
        super().__init__(sequence)
        self.sequence = sequence


@dataclass(slots=True)
class RepeatedMessages:
    """Search for repeated messages of one customer, by halving the range in which they are.

    `request` sends a query to audit.
    """

    bus: Bus
    request: Request
    customer: str

    async def count(self, wanted: Contents) -> int:
        """Return the number of messages that the tables lack although they have the events.

        Raises:
            MessageMissingError: the tables lack an event.
            ToolbusError: audit or the stream did not reply.

        """
        return await self._search(wanted.created_at, wanted.first, wanted.last)

    async def _search(self, stream: str, first: int, last: int) -> int:
        in_stream = await self._since(first) - await self._since(last + 1)
        query = self._query(stream=stream, first=first, last=last)
        if (await self.request(query)).messages >= in_stream:
            return 0
        if in_stream <= PAGE:
            return await self._compare(stream, first, last)
        middle = (first + last) // 2
        before = await self._search(stream, first, middle)
        return before + await self._search(stream, middle + 1, last)

    async def _since(self, first: int) -> int:
        """Return the number of messages of the customer with this sequence number or later."""
        found = await read_from(self.bus.client, EVENTS, first, self._subjects, max_messages=1)
        return found[0].later + 1 if found else 0

    async def _compare(self, stream: str, first: int, last: int) -> int:
        repeated = 0
        async for page in self._pages(first, last):
            sequences = tuple(message.sequence for message in page)
            stored = set(
                (await self.request(self._query(stream=stream, sequences=sequences))).sequences
            )
            lacking = [message for message in page if message.sequence not in stored]
            await self._check_events(stream, lacking)
            repeated += len(lacking)
        return repeated

    async def _pages(self, first: int, last: int) -> AsyncIterator[list[StreamEntry]]:
        async for page in read_on(self.bus.client, EVENTS, first, self._subjects):
            if page[-1].sequence <= last:
                yield page
                continue
            if within := [message for message in page if message.sequence <= last]:
                yield within
            return

    async def _check_events(self, stream: str, messages: Sequence[StreamEntry]) -> None:
        """Raise `MessageMissingError` if an event of one of these messages is not stored."""
        ids = {message.sequence: _ids_of(message) for message in messages}
        every, stored = sorted({each for found in ids.values() for each in found}), set[str]()
        for start in range(0, len(every), IDS_AT_ONCE):
            some = tuple(every[start : start + IDS_AT_ONCE])
            stored.update((await self.request(self._query(stream=stream, ids=some))).ids)
        for sequence, wanted in ids.items():
            if not stored.issuperset(wanted):
                raise MessageMissingError(sequence)

    @property
    def _subjects(self) -> str:
        return subject_of("*.*", self.customer)

    def _query(self, **fields: object) -> SpendingQuery:
        return SpendingQuery(customer=self.customer, start=0, end=0, **fields)


def _ids_of(message: StreamEntry) -> list[str]:
    """Return the ids of the message's events. Raises `MessageMissingError` if it is unreadable."""
    try:
        return [_event(line).id for line in message.data.split(b"\n")]
    except msgspec.MsgspecError:  # audit stores it as a dead letter
        raise MessageMissingError(message.sequence) from None
