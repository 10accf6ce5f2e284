"""What the executor publishes about each server: its state and what it offers, in the KV bucket."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from toolbus_common.contracts.base import Message


class ServerState(StrEnum):
    """Where a server stands, as operators see it."""

    CONNECTING = "connecting"
    READY = "ready"
    STALE = "stale"  # unreachable, its last known tools are still listed
    FAILED = "failed"  # never reached


class CatalogEntry(Message):
    """One thing a server offers, by its name or URI there, and its whole definition.

    Where strict clients could not read it as its server sent it, `definition` is the repaired one,
    `sent` the other, and `repaired` says what was changed. `digest` is the canonical SHA-256 in hex
    of what was sent, of tools and prompts. `shown_to` are the
    classes of clients that the server offers it to (`client_classes`); None: to all.
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
    """A tool or prompt nobody may see or use as it is now; `approved` is the pinned digest."""

    kind: str
    approved: str = ""
    why: str = ""


class Handshake(Message):
    """What a server that speaks both protocol families says of itself in the handshake.

    `tasks` names the tools that may run as tasks there, with what each says of it.
    """

    version: str
    instructions: str = ""
    capabilities: dict[str, Any] = Field(default_factory=dict)
    server_info: dict[str, Any] = Field(default_factory=dict)
    tasks: dict[str, str] = Field(default_factory=dict)


class Listing(Message):
    """One server's entry in the catalogue bucket, under the server's name.

    `ttl_ms` is the least its lists may be kept by the server's own word, None where it gave none;
    `listed_at`, in seconds since the epoch, is told only with a `ttl_ms` above zero: else every
    listing would differ from the one before.
    What is held back stands apart: who reads the other lists cannot show or call it by mistake.
    `known` once pins decided about the server: should they be lost, nothing is trusted anew.
    `declared` tells a process's declaration from others, so that none is started only to be listed
    as before. `server_info` is the server's name for itself, with its version, title and icons.
    `handshake` is there for a server that speaks both families, of which `family` is the newest.
    `hints` are the milliseconds each method's result may be kept by the server's own word.
    `depends` says whether the lists depend on what a client declares; None where that is not known.
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
    lost_at: float = 0.0  # since when it is stale or failed, in seconds since the epoch
    ttl_ms: int | None = None
    listed_at: float = 0.0
    tools: tuple[CatalogEntry, ...] = ()
    prompts: tuple[CatalogEntry, ...] = ()
    resources: tuple[CatalogEntry, ...] = ()  # by URI
    templates: tuple[CatalogEntry, ...] = ()  # by URI template
    held: tuple[Quarantined, ...] = ()
    known: bool = False
    declared: str = ""
    server_info: dict[str, Any] = Field(default_factory=dict)
    handshake: Handshake | None = None
    hints: dict[str, int] = Field(default_factory=dict)
    depends: bool | None = None

    def left_ms(self, now: float) -> int | None:
        """How long its lists may still be kept; None where the server does not say."""
        if self.ttl_ms is None:
            return None
        gone = max(0.0, now - self.listed_at) * 1000
        return max(0, int(self.ttl_ms - gone))

    def same_but_for_time(self, other: "Listing") -> bool:
        """Whether they say the same, whenever they were listed."""
        return self.model_copy(update={"listed_at": other.listed_at}) == other
