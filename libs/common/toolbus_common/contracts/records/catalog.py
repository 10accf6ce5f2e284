"""Entries of the catalog bucket: each server's state and definitions, written by executor."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from toolbus_common.contracts.base import Message


class ServerState(StrEnum):
    """State of the connection to a server."""

    CONNECTING = "connecting"
    READY = "ready"
    STALE = "stale"  # unreachable; its last known tools are still listed
    FAILED = "failed"  # never reached


class CatalogEntry(Message):
    """A tool, prompt, resource or template of a server: its name or URI, and its definition.

    If strict clients could not parse the server's definition, `definition` is the repaired form,
    `sent` is the original, and `repaired` describes the change. `digest` is the canonical SHA-256
    of the original in hex. `signals` are the names of rules that found instructions to a model in
    the definition, each with its score. `held` is the reason why a guard quarantines the
    definition. `shown_to` lists the client classes that receive the entry (`client_classes`), or
    is None for all classes.
    """

    name: str
    definition: dict[str, Any]
    digest: str = ""
    sent: dict[str, Any] | None = None
    repaired: str = ""
    signals: dict[str, float] = Field(default_factory=dict)
    held: str = ""
    shown_to: tuple[str, ...] | None = None

    @property
    def as_sent(self) -> dict[str, Any]:
        """The definition in the form that the server sent."""
        return self.definition if self.sent is None else self.sent


class Quarantined(CatalogEntry):
    """A quarantined definition. It is hidden from all clients.

    `kind` is the kind of its list, or `instructions`. `approved` is the pinned digest, and `why` is
    the reason.
    """

    kind: str
    approved: str = ""
    why: str = ""


class Handshake(Message):
    """Handshake data of a server that supports both protocol families.

    `tasks` maps the tools that can run as tasks to the server's `taskSupport`.
    """

    version: str
    instructions: str = ""
    capabilities: dict[str, Any] = Field(default_factory=dict)
    server_info: dict[str, Any] = Field(default_factory=dict)
    tasks: dict[str, str] = Field(default_factory=dict)


class Listing(Message):
    """The entry of one server or provider in the catalog bucket. Its key is the name.

    `ttl_ms` is the cache lifetime that the server gives for its lists, or None. `listed_at` (in
    seconds since the epoch) is set only if `ttl_ms` is above zero. Otherwise each listing would
    differ from the previous one. Quarantined definitions are only in `quarantined`, so that no
    reader of the other lists shows or calls them by mistake. `known` is set once pins exist for the
    server: if the pins are lost, the next listing is not trusted as a first listing. `declared` is
    the digest of the configuration of a process: if it is unchanged, the server is not started only
    to be listed. `server_info` contains the server's own name, version, title and icons.
    `handshake` is set for a server that supports both protocol families; `family` is then the newer
    one. `hints` are the cache lifetimes in milliseconds that the server gives for results, by
    method. `depends` is true if the lists depend on the client's capabilities, and None if this is
    unknown. `awaits_comparison` is set while it is unknown which entries only some clients receive.
    `signals` and `held` concern the instructions of the server. `models` are the names of the
    models that a provider lists; it is None for a server. The entry of a provider has no other
    list, and its `declared` is the digest of its address.
    """

    server: str
    state: ServerState
    family: str = ""
    version: str = ""
    instructions: str = ""
    reason: str = ""
    capabilities: dict[str, Any] = Field(default_factory=dict)  # as the server declared them
    dropped: dict[str, str] = Field(default_factory=dict)  # name -> reason
    failed: dict[str, str] = Field(default_factory=dict)  # list method -> reason
    lost_at: float = 0.0  # time of becoming stale or failed, in seconds since the epoch
    ttl_ms: int | None = None
    listed_at: float = 0.0
    tools: tuple[CatalogEntry, ...] = ()
    prompts: tuple[CatalogEntry, ...] = ()
    resources: tuple[CatalogEntry, ...] = ()  # by URI
    templates: tuple[CatalogEntry, ...] = ()  # by URI template
    quarantined: tuple[Quarantined, ...] = ()
    known: bool = False
    declared: str = ""
    server_info: dict[str, Any] = Field(default_factory=dict)
    handshake: Handshake | None = None
    hints: dict[str, int] = Field(default_factory=dict)
    depends: bool | None = None
    awaits_comparison: bool = False
    signals: dict[str, float] = Field(default_factory=dict)
    held: str = ""
    models: tuple[str, ...] | None = None

    def remaining_ms(self, now: float) -> int | None:
        """Return the remaining cache lifetime of the lists; None if the server gave no lifetime."""
        if self.ttl_ms is None:
            return None
        age = max(0.0, now - self.listed_at) * 1000
        return max(0, int(self.ttl_ms - age))

    def equals_ignoring_time(self, other: "Listing") -> bool:
        """Return whether both listings are equal except for the time of listing."""
        return self.model_copy(update={"listed_at": other.listed_at}) == other
