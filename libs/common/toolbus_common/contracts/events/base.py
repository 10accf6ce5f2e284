"""Base classes of events; `calls.EVENTS` lists all events."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from toolbus_common.contracts.base import Plain
from toolbus_common.contracts.calls import TOOLS_CALL

# Events that webhooks can receive. Calls are too many to post: they are recorded by audit only.
POSTED = (
    "approval", "breaker", "config", "definition", "hold", "key", "person", "rule", "server",
    "witness",
)  # fmt: skip

DEFAULT_CUSTOMER = "default"  # the paying customer when none is configured

_PREFIX = "tb.event."
EVERY_EVENT = f"{_PREFIX}>"
NO_PEOPLE: Mapping[str, str] = MappingProxyType({})


def subject_of(name: str, customer: str) -> str:
    """Return the subject for events with this name and customer."""
    return f"{_PREFIX}{name}.{customer}"


def parse_subject(subject: str) -> tuple[str, str]:
    """Return the name and the customer of the events on a subject."""
    name, _, customer = subject.removeprefix(_PREFIX).rpartition(".")
    return name, customer


class Event(Plain):
    """Fields of every event.

    `id` is unique. `at` is the time in seconds since the epoch; `customer` is the customer that
    pays.
    """

    NAME: ClassVar[str]
    # The field that names a person, the kind of that person, the fields that mention the name with
    # its kind, and the fields that are encrypted with that person's key.
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
        """Whether the event names no person and has no encrypted content, as most events."""
        fields = self.__dict__
        return not (fields.get(self.PERSON) or any(map(fields.get, self.CONTENT)))

    @property
    def people(self) -> Mapping[str, str]:
        """The fields that name a person, each with that person as `<kind>:<name>`."""
        return {self.PERSON: name} if (name := self._named) else NO_PEOPLE

    @property
    def content(self) -> Mapping[str, str]:
        """The fields to encrypt, with the owner of the key: the person, or else the API key."""
        filled = [field for field in self.CONTENT if getattr(self, field)]
        owner = (self._named or f"key:{getattr(self, 'key', '')}") if filled else ""
        return dict.fromkeys(filled, owner) if filled else NO_PEOPLE

    @property
    def _named(self) -> str:
        name: str = getattr(self, self.PERSON) if self.PERSON else ""
        return name if ":" in name or not name else f"{self.KIND}:{name}"


class CallEvent(Event):
    """Fields of every event about a call.

    `call_id` identifies the call, `parent_id` the call of code mode whose program made it.
    `trace_id` is the W3C trace id. `key` is the name of the caller's key, `method` the MCP method,
    and `tool` its target at `server`: the name of a tool or prompt, or a URI.
    """

    call_id: str
    parent_id: str = ""
    trace_id: str = ""
    key: str = ""
    server: str
    tool: str
    method: str = TOOLS_CALL
