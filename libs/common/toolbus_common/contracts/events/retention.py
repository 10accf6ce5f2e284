"""Events about the audit log itself: erased people, legal holds, and expired events."""

from typing import ClassVar

from toolbus_common.contracts.events.base import Event


class PersonErased(Event):
    """A person's encryption key was deleted: `pseudonym` can no longer be resolved to a person.

    Published by audit in the log of each customer whose events name that person, before the key is
    deleted. `by` is the operator, `reason` the operator's text.
    """

    NAME: ClassVar[str] = "person.erased"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    pseudonym: str
    by: str = ""
    reason: str = ""


class HoldEvent(Event):
    """Fields of every event about a legal hold; `customer` is the customer whose events it covers.

    `by` is the operator, `reason` the operator's text.
    """

    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    by: str = ""
    reason: str = ""


class HoldPlaced(HoldEvent):
    """A legal hold was placed: no event of this customer is deleted until it is lifted."""

    NAME: ClassVar[str] = "hold.placed"


class HoldLifted(HoldEvent):
    """A legal hold was lifted: expired events of this customer may be deleted again."""

    NAME: ClassVar[str] = "hold.lifted"


class EventsExpired(Event):
    """The first `size` events of a customer's log were deleted after their retention of `days`.

    The log continues from the checkpoint of that size; `to` is its last message in `stream`.
    """

    NAME: ClassVar[str] = "events.expired"

    stream: str
    size: int
    to: int
    days: int


class WitnessContradicted(Event):
    """A witness knows a log of this `origin` that is inconsistent with the local one.

    The witness cosigned `known` events, while the newest local checkpoint has `size`. Either data
    of audit was lost or rolled back, or another party signs with its key.
    """

    NAME: ClassVar[str] = "witness.contradicted"

    witness: str
    origin: str
    known: int
    size: int
    reason: str
