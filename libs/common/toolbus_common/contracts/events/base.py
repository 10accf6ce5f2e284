"""What events have in common; what there is of them is in `events`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from toolbus_common.contracts.base import Plain
from toolbus_common.contracts.calls import TOOLS_CALL

# What webhooks can be told of. Calls are too many to post: they are for the audit.
POSTED = (
    "approval", "breaker", "config", "definition", "hold", "key", "person", "rule", "server",
    "witness",
)  # fmt: skip

DEFAULT_CUSTOMER = "default"  # who pays when no customer is declared

_BEFORE = "tb.event."
EVERY_EVENT = f"{_BEFORE}>"
NOBODY: Mapping[str, str] = MappingProxyType({})


def subject_of(name: str, customer: str) -> str:
    """Where events of a name and a customer are said."""
    return f"{_BEFORE}{name}.{customer}"


def told_by(subject: str) -> tuple[str, str]:
    """The name and the customer of the events on a subject."""
    name, _, customer = subject.removeprefix(_BEFORE).rpartition(".")
    return name, customer


class Event(Plain):
    """What every event has. `at` is seconds since the epoch; `customer` is the paying customer."""

    NAME: ClassVar[str]
    # The field that names a person, what kind of person that is, fields in which the name is
    # mentioned with its kind, and fields that are sealed under that person's key.
    PERSON: ClassVar[str] = ""
    KIND: ClassVar[str] = "user"
    MENTIONS: ClassVar[tuple[str, ...]] = ()
    CONTENT: ClassVar[tuple[str, ...]] = ()

    id: str
    at: float
    customer: str

    @property
    def subject(self) -> str:
        """Where this event is said."""
        return subject_of(self.NAME, self.customer)

    @property
    def impersonal(self) -> bool:
        """Whether it surely names nobody, and holds nothing that is sealed: most do not."""
        told = self.__dict__
        return not (told.get(self.PERSON) or any(map(told.get, self.CONTENT)))

    @property
    def people(self) -> Mapping[str, str]:
        """Fields that name somebody, and whom."""
        return {self.PERSON: name} if (name := self._named) else NOBODY

    @property
    def content(self) -> Mapping[str, str]:
        """Fields that are sealed, and under whose key: the person's, or where none is named its."""
        filled = [field for field in self.CONTENT if getattr(self, field)]
        owner = (self._named or f"key:{getattr(self, 'key', '')}") if filled else ""
        return dict.fromkeys(filled, owner) if filled else NOBODY

    @property
    def _named(self) -> str:
        said: str = getattr(self, self.PERSON) if self.PERSON else ""
        return said if ":" in said or not said else f"{self.KIND}:{said}"


class CallEvent(Event):
    """What every event about a call has."""

    call_id: str
    parent_id: str = ""
    trace_id: str = ""
    key: str = ""
    server: str
    tool: str
    method: str = TOOLS_CALL
