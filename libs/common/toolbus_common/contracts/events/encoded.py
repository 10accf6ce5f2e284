"""Events in their wire form, for the call path: no object of their contract is built."""

from typing import ClassVar

from msgspec import Struct

from toolbus_common.contracts.events.base import Event
from toolbus_common.contracts.events.calls import CallCompleted


class EncodedEvent(Struct, frozen=True):
    """An event as it is published; its producer has validated the fields.

    `impersonal` is set if it neither names a person nor contains text to encrypt (see `Event`).
    """

    CONTRACT: ClassVar[type[Event]]
    NAME: ClassVar[str]

    customer: str
    subject: str
    wire: bytes
    impersonal: bool

    def encode(self) -> bytes:
        """Return the wire form."""
        return self.wire

    def decoded(self) -> Event:
        """Return the event as an object of its contract."""
        return self.CONTRACT.decode(self.wire)


class EncodedCompletion(EncodedEvent, frozen=True):
    """A `call.completed` event."""

    CONTRACT = CallCompleted
    NAME = CallCompleted.NAME
