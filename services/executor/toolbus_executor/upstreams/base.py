"""Interface of an upstream server, independent of its transport and protocol family."""

from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from toolbus_common.concurrency import completely
from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.upstreams.call_channel import Caller, Question

LISTS = ("tools", "prompts", "resources")

# Sends a call within this number of seconds, and returns its raw result.
Send = Callable[[CallAdmitted, float, Caller], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Described:
    """The server's description of itself.

    `info` contains its name, version and title. `is_toolbus` is set for another Toolbus gateway.
    `ours` is set if Toolbus wrote the description because it cannot connect to the server yet.
    """

    family: str
    version: str
    instructions: str = ""
    capabilities: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    is_toolbus: bool = False
    ttl_ms: int | None = None  # cache lifetime of the description that the server permits
    ours: bool = False

    def has(self, capability: str) -> bool:
        """Return whether the server declares a capability."""
        return isinstance(self.capabilities.get(capability), dict)

    @property
    def changing(self) -> tuple[str, ...]:
        """The lists whose changes the server reports."""
        return tuple(
            name
            for name in LISTS
            if self.has(name) and self.capabilities[name].get("listChanged") is True
        )

    @property
    def subscribable(self) -> bool:
        """Whether the server supports subscriptions to resources."""
        return self.has("resources") and self.capabilities["resources"].get("subscribe") is True


@dataclass(frozen=True, slots=True)
class UpstreamCallbacks:
    """Callbacks for messages that an upstream sends outside of calls.

    Attributes:
        on_lists_changed: a list may have changed.
        on_notification: a notification for all clients arrived: its method and raw params.
        relist: list the server again now. Raises an error if the call's tool is quarantined
            afterwards.
        on_dropped: a message of this kind could not be attributed to a call.
        on_owner_message: a message for one principal arrived: principal id, client session or
            empty, method, raw params, the resources watched there, and the id of a request that the
            client is to answer, or empty.
        on_request: the server sent a request to its callers.
        is_one_client: returns whether the connection belongs to one client session.
        forward_request: forward a request outside of calls to that client.
        note_call: record the guards of a call: principal id, client session or empty, and the call.
        check_answer: return the raw member of a client's answer as the server may receive it:
            principal id, client session, method of the request, and the member.

    """

    on_lists_changed: Callable[[], None]
    on_notification: Callable[[str, bytes], None]
    relist: Callable[[CallAdmitted], Awaitable[None]]
    on_dropped: Callable[[str], None] = lambda _kind: None
    on_owner_message: Callable[[str, str, str, bytes, Collection[str], str], None] | None = None
    on_request: Callable[[], None] | None = None
    is_one_client: Callable[[], bool] = lambda: False
    forward_request: Callable[[Question], None] | None = None
    note_call: Callable[[str, str, CallAdmitted], None] | None = None
    check_answer: Callable[[str, str, str, bytes], Awaitable[bytes]] | None = None


class NoSuchFamilyError(UpstreamInvalidError):
    """The server does not support the configured protocol family."""

    @classmethod
    def legacy(cls) -> "NoSuchFamilyError":
        """Return the error for a server that rejects the handshake."""
        return cls(
            "The upstream rejects the handshake (initialize), so it has no legacy revision; set "
            "'protocol: modern', or remove 'protocol'.",
            sent=False,
        )

    @classmethod
    def modern(cls) -> "NoSuchFamilyError":
        """Return the error for a server without a stateless revision."""
        return cls(
            "The upstream does not list a stateless revision (2026-07-28) in server/discover; "
            "set 'protocol: legacy', or remove 'protocol'.",
            sent=False,
        )


class SameDeathError(UpstreamDeadError):
    """A call failed because its process ended. The end was already counted as a failure."""


class Upstream(Protocol):
    """A connection to one server.

    `call` raises errors of `toolbus_common.errors`. The data of an error contains `sent: False`
    only if it is certain that nothing was sent.
    """

    left_out: dict[str, str]  # entries that the latest lists omit, with the reasons

    @property
    def sends_requests(self) -> bool:
        """Whether the server may send requests to a client during a call."""
        ...

    async def open(self) -> Described:
        """Detect the protocol family and connect. Return the server's description."""
        ...

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list."""
        ...

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the definitions of the listed tools; some calls depend on the definition."""
        ...

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Return the raw JSON result of a request.

        Raises:
            TimeoutError: there was no response within `seconds`.

        """
        ...

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to exactly these resources."""
        ...

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to exactly these tasks."""
        ...

    async def wait_lost(self) -> str:
        """Wait until the server must be reconnected, and return the reason."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


async def close_completely(upstream: Upstream) -> None:
    """Close an upstream even if this task is cancelled, so that no process outlives it."""
    await completely(upstream.close())


def sends_requests(upstream: Upstream, call: CallAdmitted) -> bool:
    """Return whether the server may send requests to the client during this call."""
    of_call = getattr(upstream, "sends_requests_in", None)
    return upstream.sends_requests if of_call is None else bool(of_call(call))


def plain_sender(upstream: object, tool: str) -> Send | None:
    """Return the function that sends plain calls of a tool; None if the upstream has none.

    A plain call has a caller of the stateless family, and no member besides its arguments. The
    function stays valid until the server's definitions change. It raises like `Upstream.call`.
    """
    of_tool = getattr(upstream, "plain_sender", None)
    return None if of_tool is None else cast("Send | None", of_tool(tool))


def separates(upstream: object, call: CallAdmitted) -> bool:
    """Return whether this call needs a session that belongs to its caller alone."""
    of_call = getattr(upstream, "separates_in", None)
    return bool(getattr(upstream, "separates", False) if of_call is None else of_call(call))


def is_isolated_failure(upstream: object, call: CallAdmitted) -> bool:
    """Return whether a failure of this call should not count as a failure of the server."""
    of_call = getattr(upstream, "spared", None)
    return of_call is not None and bool(of_call(call))


@contextmanager
def sent_before() -> Iterator[None]:
    """Remove `sent` from errors in this context, because an earlier request was sent.

    The call may therefore have been executed.
    """
    try:
        yield
    except ToolbusError as error:
        error.data.pop("sent", None)
        raise
