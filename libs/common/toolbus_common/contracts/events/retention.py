"""Events about the evidence itself: what was erased, held, and deleted after its time."""

from typing import ClassVar

from toolbus_common.contracts.events.base import Event


class PersonErased(Event):
    """Somebody's key is shredded: what `pseudonym` stands for, nobody can tell any more.

    Said in the log of each customer whose events name that person, before the key goes.
    """

    NAME: ClassVar[str] = "person.erased"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    pseudonym: str
    by: str = ""
    reason: str = ""


class HoldEvent(Event):
    """What every event about a legal hold has; `customer` is the customer whose events are held."""

    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    by: str = ""
    reason: str = ""


class HoldPlaced(HoldEvent):
    """Nothing of this customer is deleted or erased until the hold is lifted."""

    NAME: ClassVar[str] = "hold.placed"


class HoldLifted(HoldEvent):
    """What is past its time may be deleted again."""

    NAME: ClassVar[str] = "hold.lifted"


class EventsExpired(Event):
    """The first `size` events of this customer's log are past their `days`, and deleted.

    The log goes on from the statement of that size, whose last message in `stream` is `to`.
    """

    NAME: ClassVar[str] = "events.expired"

    stream: str
    size: int
    to: int
    days: int


class WitnessContradicted(Event):
    """A witness knows a log of this origin that ours does not go on from.

    It cosigned `known` events, while the newest checkpoint here has `size`. Either what audit keeps
    was lost or set back, or somebody else signs with its key.
    """

    NAME: ClassVar[str] = "witness.contradicted"

    witness: str
    origin: str
    known: int
    size: int
    reason: str
