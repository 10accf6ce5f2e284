"""What the executor needs of an upstream, whatever its transport and family."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamFaultError
from toolbus_executor.upstreams.call_channel import Caller, Question

LISTS = ("tools", "prompts", "resources")


@dataclass(frozen=True, slots=True)
class Described:
    """What an upstream says of itself; `ours` where Toolbus speaks for one it cannot meet yet.

    `info` is its name, version and title; `is_toolbus` says that it leads on through a gateway.
    """

    family: str
    version: str
    instructions: str = ""
    capabilities: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    is_toolbus: bool = False
    ttl_ms: int | None = None  # how long all this may be kept, by its own word
    ours: bool = False

    def has(self, capability: str) -> bool:
        """Whether it declares a capability."""
        return isinstance(self.capabilities.get(capability), dict)

    @property
    def changing(self) -> tuple[str, ...]:
        """The lists it says it tells changes of."""
        return tuple(
            name
            for name in LISTS
            if self.has(name) and self.capabilities[name].get("listChanged") is True
        )

    @property
    def subscribable(self) -> bool:
        """Whether its resources can be watched."""
        return self.has("resources") and self.capabilities["resources"].get("subscribe") is True


@dataclass(frozen=True, slots=True)
class News:
    """Whom an upstream tells what belongs to no call.

    `changed` hears that a list may have changed, `said` a notification's method and raw params;
    `relist` lists anew at once, and raises when the call's tool is held back as it is now. `told`
    hears what is for one principal, and of its client sessions for one where that is named, with
    the resources that are watched there; its
    last argument is the id of a request that the client is to answer, else empty;
    `asked` that the server asks its callers something, `dropped` of messages that can be
    attributed to no call, by their kind. `one_client` says whether the connection belongs to one
    client session; `ask` puts a question of no call to that client.
    """

    changed: Callable[[], None]
    said: Callable[[str, bytes], None]
    relist: Callable[[CallAdmitted], Awaitable[None]]
    dropped: Callable[[str], None] = lambda _kind: None
    told: Callable[[str, str, str, bytes, Collection[str], str], None] | None = None
    asked: Callable[[], None] | None = None
    one_client: Callable[[], bool] = lambda: False
    ask: Callable[[Question], None] | None = None


class NoSuchFamilyError(UpstreamFaultError):
    """The server does not speak the family of protocol revisions it was to be spoken to in."""

    @classmethod
    def legacy(cls) -> "NoSuchFamilyError":
        """It refuses the handshake."""
        return cls(
            "The upstream refuses the handshake (initialize), so it offers no legacy revision; "
            "declare protocol: modern, or leave protocol out.",
            sent=False,
        )

    @classmethod
    def modern(cls) -> "NoSuchFamilyError":
        """It names no stateless revision."""
        return cls(
            "The upstream names no stateless revision (2026-07-28) when asked server/discover; "
            "declare protocol: legacy, or leave protocol out.",
            sent=False,
        )


class SameDeathError(UpstreamDeadError):
    """A call was lost with a process whose end was counted as a failure already."""


class Upstream(Protocol):
    """A connection to one server.

    `call` raises the errors of `toolbus_common.errors`; each has the attribute `sent` in its data
    set to False when provably nothing was written.
    """

    left_out: dict[str, str]  # of its latest lists, and why

    @property
    def asks(self) -> bool:
        """Whether the server may ask back in the middle of a call."""
        ...

    async def open(self) -> Described:
        """Probe the family, shake hands, and learn what the server is."""
        ...

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list."""
        ...

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of the tools as listed: some are called in a way of their own."""
        ...

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """The raw JSON result of a request. Raises `TimeoutError` after so many seconds."""
        ...

    async def watch(self, uris: frozenset[str]) -> None:
        """Hear of changes of these resources and no others."""
        ...

    async def follow(self, tasks: frozenset[str]) -> None:
        """Hear how these tasks go on, and no others."""
        ...

    async def wait_lost(self) -> str:
        """Wait until the connection is of no more use; a sentence why."""
        ...

    async def close(self) -> None:
        """Leave."""
        ...


async def leave(upstream: Upstream) -> None:
    """Close it, to the end however often this is cancelled: no process outlives its place."""
    closing = asyncio.ensure_future(upstream.close())
    cancelled: asyncio.CancelledError | None = None
    while not closing.done():
        try:
            await asyncio.wait((closing,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    closing.result()


def asks(upstream: Upstream, call: CallAdmitted) -> bool:
    """Whether the server may ask back in the middle of this call."""
    of_call = getattr(upstream, "asks_in", None)
    return upstream.asks if of_call is None else bool(of_call(call))


def separates(upstream: object, call: CallAdmitted) -> bool:
    """Whether this call belongs to a session of its owner's."""
    of_call = getattr(upstream, "separates_in", None)
    return bool(getattr(upstream, "separates", False) if of_call is None else of_call(call))


def spares(upstream: object, call: CallAdmitted) -> bool:
    """Whether a failed call says nothing of the whole server: others of it are well."""
    of_call = getattr(upstream, "spared", None)
    return of_call is not None and bool(of_call(call))


@contextmanager
def sent_before() -> Iterator[None]:
    """What fails here follows a request that was sent, so the call may have happened."""
    try:
        yield
    except ToolbusError as error:
        error.data.pop("sent", None)
        raise
