"""Events about the audit log itself: erased people, legal holds, and expired events."""

from typing import ClassVar

from toolbus_common.contracts.events.base import Event


class PersonErased(Event):
    """A person's encryption key was deleted. `pseudonym` can no longer be resolved to a person.

    Audit publishes this event in the log of each customer whose events name the person, before the
    key is deleted. `by` is the operator, and `reason` is the operator's text.
    """

    NAME: ClassVar[str] = "person.erased"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    pseudonym: str
    by: str = ""
    reason: str = ""


class HoldEvent(Event):
    """Fields of every event about a legal hold on the events of `customer`.

    `by` is the operator, and `reason` is the operator's text.
    """

    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    by: str = ""
    reason: str = ""


class HoldPlaced(HoldEvent):
    """A legal hold was placed. No event of this customer is deleted until the hold is lifted."""

    NAME: ClassVar[str] = "hold.placed"


class HoldLifted(HoldEvent):
    """A legal hold was lifted. Expired events of this customer can be deleted again."""

    NAME: ClassVar[str] = "hold.lifted"


class EventsExpired(Event):
    """The first `size` events of a customer's log were deleted after a retention of `days`.

    The log continues from the checkpoint of that size. `to` is the last deleted message in
    `stream`.
    """

    NAME: ClassVar[str] = "events.expired"

    stream: str
    size: int
    to: int
    days: int


class WitnessContradicted(Event):
    """A witness knows a log of this `origin` that is inconsistent with the local log.

    The witness has cosigned `known` events; the newest local checkpoint has `size` events. Either
    audit has lost data or was rolled back, or another party signs with audit's key.
    """

    NAME: ClassVar[str] = "witness.contradicted"

    witness: str
    origin: str
    known: int
    size: int
    reason: str
