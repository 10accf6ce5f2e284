"""The stream of events about calls as server-sent events: `GET /api/v1/live`."""

import asyncio
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_ingress.admin_api.credentials import authenticate
from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.live.feed import LiveEvent, LiveFeed, Watcher
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.sessions.sse_writer import DisconnectWatch, EventStream, Send

PATH = "/api/v1/live"
PAUSE = 0.25  # seconds between two messages; events in between are sent together
SILENCE = 10.0  # seconds without events, after which a comment is sent
RECHECK = 5.0  # seconds after which the credential is checked again
LONGEST = 3600.0  # seconds; browsers reconnect by themselves
_RESULTS = {"": (), "denied": ("call.denied",), "failed": ("call.failed",)}
_PARAMETERS = frozenset({"key", "tool", "result", "customer"})


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects events by texts in the key or `server__tool`, by customer, and by result."""

    key: str = ""
    tool: str = ""
    customer: str = ""
    events: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: str) -> "Selection":
        """Return the selection of a query. Raises `InvalidError`."""
        fields = dict(parse_qsl(query))
        if unknown := sorted(fields.keys() - _PARAMETERS):
            raise InvalidError(
                f"Unknown parameter: {', '.join(unknown)}. Use key, tool, customer and result."
            )
        if fields.get("result", "") not in _RESULTS:
            raise InvalidError("Invalid value of 'result'. Use denied or failed, or omit it.")
        events = _RESULTS[fields.get("result", "")]
        return cls(
            fields.get("key", ""), fields.get("tool", ""), fields.get("customer", ""), events
        )

    def matches(self, event: LiveEvent) -> bool:
        """Return whether an event is selected."""
        return (
            self.key in event.key
            and self.tool in f"{event.server}__{event.tool}"
            and self.customer in ("", event.customer)
            and (not self.events or event.event in self.events)
        )


async def watch_calls(
    endpoint: Endpoint,
    feed: LiveFeed,
    scope: MutableMapping[str, Any],
    headers: Headers,
    send: Send,
) -> None:
    """Send events until the client leaves or may no longer see them.

    Raises:
        UnauthorizedError: there is no valid credential.
        ForbiddenError: the role may not see calls.
        InvalidError: the query is invalid.
        OverloadedError: there are too many watchers.

    """
    selection = Selection.of(scope["query_string"].decode("latin-1"))
    await _check(endpoint, headers, scope)
    watcher = await feed.join(selection.matches)
    disconnect = DisconnectWatch(scope, watcher.close)
    try:
        await _write(endpoint, feed, watcher, headers, scope, EventStream(send))
    finally:
        disconnect.stop()
        await feed.leave(watcher)


async def _write(
    endpoint: Endpoint,
    feed: LiveFeed,
    watcher: Watcher,
    headers: Headers,
    scope: Mapping[str, Any],
    stream: EventStream,
) -> None:
    began = checked = monotonic()
    await stream.start()
    while not watcher.closed and monotonic() - began < LONGEST:
        await watcher.wait(min(SILENCE, RECHECK))
        if monotonic() - checked > RECHECK:
            try:
                await _check(endpoint, headers, scope)
            except ToolbusError:
                break
            checked = monotonic()
        part = await feed.take(watcher)
        if part.events:
            await stream.event(msgspec.json.encode(part))
            await asyncio.sleep(PAUSE)
        else:
            await stream.comment()
    await stream.end()


async def _check(endpoint: Endpoint, headers: Headers, scope: Mapping[str, Any]) -> None:
    _, administrator = await authenticate(endpoint, headers, dict(scope))
    administrator.check("calls")
