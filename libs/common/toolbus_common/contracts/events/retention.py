"""Facts about the evidence itself: what was erased, held, and deleted after its time."""

from typing import ClassVar

from toolbus_common.contracts.events.base import Fact


class PersonForgotten(Fact):
    """Somebody's key is shredded: what `pseudonym` stands for, nobody can tell any more.

    Said in the log of each customer whose facts name that person, before the key goes.
    """

    NAME: ClassVar[str] = "person.forgotten"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    pseudonym: str
    by: str = ""
    reason: str = ""


class HoldFact(Fact):
    """What every fact about a legal hold has; `scope` is the customer whose facts are held."""

    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    by: str = ""
    reason: str = ""


class HoldPlaced(HoldFact):
    """Nothing of this customer is deleted or erased until the hold is lifted."""

    NAME: ClassVar[str] = "hold.placed"


class HoldLifted(HoldFact):
    """What is past its time may be deleted again."""

    NAME: ClassVar[str] = "hold.lifted"


class FactsExpired(Fact):
    """The first `size` facts of this customer's log are past their `days`, and deleted.

    The log goes on from the statement of that size, whose last message in `stream` is `to`.
    """

    NAME: ClassVar[str] = "facts.expired"

    stream: str
    size: int
    to: int
    days: int


class WitnessContradicted(Fact):
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
