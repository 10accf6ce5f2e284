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
    """A tool, prompt, resource or template of a server, by its name or URI, with its definition.

    If strict clients could not parse the server's definition, `definition` is the repaired form,
    `sent` the original, and `repaired` describes the change. `digest` is the canonical SHA-256 of
    the original in hex, for tools and prompts. `shown_to` lists the client classes that the server
    offers it to (`client_classes`); None for all.
    """

    name: str
    definition: dict[str, Any]
    digest: str = ""
    sent: dict[str, Any] | None = None
    repaired: str = ""
    shown_to: tuple[str, ...] | None = None

    @property
    def as_sent(self) -> dict[str, Any]:
        """The definition as its server sent it."""
        return self.definition if self.sent is None else self.sent


class Quarantined(CatalogEntry):
    """A quarantined tool or prompt, hidden from all clients; `approved` is the pinned digest.

    `kind` is `tools` or `prompts`, `why` the reason.
    """

    kind: str
    approved: str = ""
    why: str = ""


class Handshake(Message):
    """Handshake data of a server that supports both protocol families.

    `tasks` holds the tools that may run as tasks, each with the server's `taskSupport`.
    """

    version: str
    instructions: str = ""
    capabilities: dict[str, Any] = Field(default_factory=dict)
    server_info: dict[str, Any] = Field(default_factory=dict)
    tasks: dict[str, str] = Field(default_factory=dict)


class Listing(Message):
    """One server's entry in the catalog bucket, under the server's name.

    `ttl_ms` is the cache lifetime that the server gives for its lists, or None. `listed_at` (in
    seconds since the epoch) is set only with a `ttl_ms` above zero: otherwise each listing would
    differ from the previous one. Quarantined definitions are in `quarantined` only, so that no
    reader of the other lists shows or calls one by mistake. `known` is set once pins exist for the
    server: if they are lost, nothing is trusted as a first listing again. `declared` is the digest
    of a process server's configuration: if it is unchanged, the server is not started just to be
    listed. `server_info` is the server's own name, version, title and icons. `handshake` is set for
    a server that supports both protocol families, of which `family` is the newest. `hints` are the
    cache lifetimes in milliseconds that the server gives for results, by method. `depends` says
    whether the lists depend on the client's capabilities; None if unknown.
    """

    server: str
    state: ServerState
    family: str = ""
    version: str = ""
    instructions: str = ""
    reason: str = ""
    capabilities: dict[str, Any] = Field(default_factory=dict)  # as the server declared them
    dropped: dict[str, str] = Field(default_factory=dict)  # name -> why it is not listed
    failed: dict[str, str] = Field(default_factory=dict)  # method of a list -> why it is left out
    lost_at: float = 0.0  # when it became stale or failed, in seconds since the epoch
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

    def left_ms(self, now: float) -> int | None:
        """Return how long its lists may still be cached; None if the server gave no lifetime."""
        if self.ttl_ms is None:
            return None
        age = max(0.0, now - self.listed_at) * 1000
        return max(0, int(self.ttl_ms - age))

    def same_but_for_time(self, other: "Listing") -> bool:
        """Return whether two listings differ at most in the time of listing."""
        return self.model_copy(update={"listed_at": other.listed_at}) == other
