"""Base classes of events. The dict `calls.EVENTS` contains all events."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from toolbus_common.contracts.base import Plain
from toolbus_common.contracts.calls import TOOLS_CALL

# The first parts of the names of events that webhooks can receive. Webhooks receive no events about
# calls, because these are too many; audit records them.
POSTED = (
    "approval", "breaker", "config", "definition", "hold", "key", "person", "rule", "server",
    "witness",
)  # fmt: skip

DEFAULT_CUSTOMER = "default"  # the paying customer if no customer is configured

_PREFIX = "tb.event."
EVERY_EVENT = f"{_PREFIX}>"
NO_PEOPLE: Mapping[str, str] = MappingProxyType({})


def subject_of(name: str, customer: str) -> str:
    """Return the subject for events with this name and customer."""
    return f"{_PREFIX}{name}.{customer}"


def parse_subject(subject: str) -> tuple[str, str]:
    """Return the event name and the customer that a subject contains."""
    name, _, customer = subject.removeprefix(_PREFIX).rpartition(".")
    return name, customer


class Event(Plain):
    """Fields of every event.

    `id` is unique. `at` is the time in seconds since the epoch. `customer` is the customer that
    pays.
    """

    NAME: ClassVar[str]
    # `PERSON` is the field that names a person, and `KIND` is the kind of this person. The fields
    # of `MENTIONS` contain the name with its kind. The fields of `CONTENT` are encrypted with the
    # person's key.
    PERSON: ClassVar[str] = ""
    KIND: ClassVar[str] = "user"
    MENTIONS: ClassVar[tuple[str, ...]] = ()
    CONTENT: ClassVar[tuple[str, ...]] = ()

    id: str
    at: float
    customer: str

    @property
    def subject(self) -> str:
        """The subject on which this event is published."""
        return subject_of(self.NAME, self.customer)

    @property
    def impersonal(self) -> bool:
        """Whether the event neither names a person nor contains text to encrypt.

        This is true of most events.
        """
        fields = self.__dict__
        return not (fields.get(self.PERSON) or any(map(fields.get, self.CONTENT)))

    @property
    def people(self) -> Mapping[str, str]:
        """The fields that name a person, each with the person as `<kind>:<name>`."""
        return {self.PERSON: name} if (name := self._named) else NO_PEOPLE

    @property
    def content(self) -> Mapping[str, str]:
        """The fields to encrypt, each with the owner of the encryption key.

        The owner is the named person, or the API key if the event names no person.
        """
        filled = [field for field in self.CONTENT if getattr(self, field)]
        owner = (self._named or f"key:{getattr(self, 'key', '')}") if filled else ""
        return dict.fromkeys(filled, owner) if filled else NO_PEOPLE

    @property
    def _named(self) -> str:
        name: str = getattr(self, self.PERSON) if self.PERSON else ""
        return name if ":" in name or not name else f"{self.KIND}:{name}"


class CallEvent(Event):
    """Fields of every event about a call.

    `call_id` identifies the call. `parent_id` is the call of code mode whose program made this
    call. `trace_id` is the W3C trace id. `key` is the name of the caller's key. `method` is the MCP
    method, and `tool` is the target at `server`: the name of a tool or prompt, or a URI.
    """

    call_id: str
    parent_id: str = ""
    trace_id: str = ""
    key: str = ""
    server: str
    tool: str
    method: str = TOOLS_CALL
