"""An upstream over streamable HTTP, in either era: probed once, then called on the pool."""

import asyncio
import itertools
import logging
from typing import Any
from urllib.parse import urlsplit

import msgspec

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamFaultError
from toolbus_executor import wire
from toolbus_executor.events import EventReader
from toolbus_executor.http1 import (
    DEFAULT_SECONDS,
    BrokenError,
    Head,
    NotSentError,
    Pool,
    TooLargeError,
)
from toolbus_executor.upstream import Described, OnProgress

log = logging.getLogger(__name__)

_OK, _NOT_FOUND, _SERVER_FAULT = 200, 404, 500
_MODERN_ERRORS = {-32020, -32021, -32022}
_LISTEN_SECONDS = 3.0


class _Answer:
    """Collects one request's answer from JSON or from an event stream."""

    def __init__(self, number: int, on_progress: OnProgress | None) -> None:
        self._number = number
        self._on_progress = on_progress
        self._events = EventReader()
        self.message: wire.Incoming | None = None
        self.fault: UpstreamFaultError | None = None

    def feed(self, piece: bytes) -> bool:
        """Take a piece of a stream; True once the answer is there."""
        try:
            for data in self._events.feed(piece):
                self._take(wire.read(data))
        except UpstreamFaultError as error:
            self.fault = error
        return self.message is not None or self.fault is not None

    def _take(self, message: wire.Incoming) -> None:
        if message.method == "notifications/progress" and self._on_progress is not None:
            self._on_progress(bytes(message.params))
        elif not message.method and message.id == self._number:
            self.message = message


class HttpUpstream:
    """One server at a URL."""

    def __init__(self, url: str, headers: dict[str, str], on_list_changed: Any) -> None:
        target = urlsplit(url)
        self._pool = Pool(target)
        self._on_list_changed = on_list_changed
        self._numbers = itertools.count(1)
        path = target.path or "/"
        self._path = (f"{path}?{target.query}" if target.query else path).encode()
        own = "".join(f"{name}: {_one_line(value)}\r\n" for name, value in headers.items())
        self._common = (
            f"Host: {target.netloc.rpartition('@')[2]}\r\n"
            f"User-Agent: toolbus/{wire.CLIENT['version']}\r\n"
            f"Accept: application/json, text/event-stream\r\n{own}"
        ).encode()
        self._modern = True
        self._version = wire.MODERN
        self._session = b""
        self._heads: dict[str, bytes] = {}
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._listening: asyncio.Task[None] | None = None
        self._handshake = asyncio.Lock()

    async def open(self) -> Described:
        """Probe with server/discover, else shake hands."""
        described = await self._discover()
        if described is None:
            self._modern = False
            described = await self._initialize()
        if described.lists_change:
            self._listening = asyncio.create_task(self._listen())
        return described

    async def list_page(self, cursor: str | None) -> dict[str, Any]:
        """One page of tools/list."""
        params: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
        return await self._request("tools/list", params)

    async def call(
        self, call: CallAdmitted, seconds: float, on_progress: OnProgress | None
    ) -> bytes:
        """Call a tool; a session the server has forgotten is begun anew, once."""
        session = self._session
        message = await self._call(call, seconds, on_progress)
        if message is None:
            await self._renew(session)
            message = await self._call(call, seconds, on_progress)
        if message is None:
            raise UpstreamFaultError("The upstream forgets its sessions as soon as it begins them.")
        return wire.result_of(message)

    async def wait_lost(self) -> str:
        """HTTP has no connection to lose: only closing ends it."""
        return await self._lost

    async def close(self) -> None:
        """End the stream and the idle connections."""
        if self._listening is not None:
            self._listening.cancel()
        if not self._lost.done():
            self._lost.set_result("closed")
        self._pool.close()

    # -- calling -----------------------------------------------------------------------------

    async def _call(
        self, call: CallAdmitted, seconds: float, on_progress: OnProgress | None
    ) -> wire.Incoming | None:
        number = next(self._numbers)
        body = wire.call_body(call, number, modern=self._modern)
        head = self._heads.get(call.tool) or self._head("tools/call", call.tool)
        request = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
        return await self._exchange(request, number, seconds, on_progress)

    async def _exchange(
        self,
        request: bytes,
        number: int,
        seconds: float = DEFAULT_SECONDS,
        on_progress: OnProgress | None = None,
    ) -> wire.Incoming | None:
        """One request and its message; None when the server does not know our session."""
        answer = _Answer(number, on_progress)
        try:
            head, body = await self._pool.ask(request, answer.feed, seconds)
        except NotSentError as error:
            raise UpstreamDeadError(f"The upstream cannot be reached: {error}.", sent=False) from (
                error
            )
        except TooLargeError as error:
            raise UpstreamFaultError(f"The upstream's answer is too large: {error}.") from error
        except BrokenError as error:
            raise UpstreamDeadError(f"The upstream broke the connection: {error}.") from error
        if answer.fault is not None:
            raise answer.fault
        if head.status == _NOT_FOUND and self._session:
            return None
        return answer.message or _message(head, body)

    def _head(self, method: str, name: str = "") -> bytes:
        head = b"POST %b HTTP/1.1\r\nContent-Type: application/json\r\n%b" % (
            self._path,
            self._common,
        )
        if self._modern:
            head += b"Mcp-Method: %b\r\n" % method.encode()
            if name:
                head += b"Mcp-Name: %b\r\n" % wire.header_value(name)
        if self._modern or method != "initialize":
            head += b"MCP-Protocol-Version: %b\r\n" % self._version.encode()
        if self._session:
            head += b"Mcp-Session-Id: %b\r\n" % self._session
        if name:
            self._heads[name] = head
        return head

    # -- everything else ---------------------------------------------------------------------

    async def _discover(self) -> Described | None:
        number = next(self._numbers)
        body = wire.request_body(number, "server/discover", {}, modern=True)
        head = self._head("server/discover")
        try:
            message = await self._exchange(
                b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body), number
            )
        except UpstreamFaultError:
            return None
        if message is None or message.error is not None:
            code = message.error.get("code") if message and isinstance(message.error, dict) else 0
            if code in _MODERN_ERRORS:
                raise UpstreamFaultError("The upstream speaks no revision that we speak.")
            return None
        told = msgspec.json.decode(wire.result_of(message))
        if wire.MODERN not in told.get("supportedVersions", ()):
            return None
        return described(told, "modern", wire.MODERN)

    async def _initialize(self) -> Described:
        self._session, self._version = b"", wire.LEGACY
        self._heads.clear()
        number = next(self._numbers)
        params = {"protocolVersion": wire.LEGACY, "capabilities": {}, "clientInfo": wire.CLIENT}
        body = wire.request_body(number, "initialize", params, modern=False)
        answer = _Answer(number, None)
        request = self._head("initialize") + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        try:
            head, text = await self._pool.ask(request, answer.feed)
        except (NotSentError, BrokenError, TooLargeError) as error:
            raise UpstreamDeadError(f"The upstream cannot be reached: {error}.") from error
        told = msgspec.json.decode(wire.result_of(answer.message or _message(head, text)))
        self._session = head.headers.get(b"mcp-session-id", b"")
        self._version = str(told.get("protocolVersion", wire.LEGACY))
        await self._notify("notifications/initialized")
        return described(told, "legacy", self._version)

    async def _renew(self, stale: bytes) -> None:
        async with self._handshake:
            if self._session == stale:  # else another call has renewed it meanwhile
                await self._initialize()

    async def _notify(self, method: str) -> None:
        body = wire.notification_body(method)
        request = self._head(method) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        try:
            await self._pool.ask(request)
        except (NotSentError, BrokenError, TooLargeError) as error:
            raise UpstreamDeadError(f"The upstream broke the connection: {error}.") from error

    async def _request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        for _ in range(2):
            session, number = self._session, next(self._numbers)
            body = wire.request_body(number, method, params, modern=self._modern)
            head = self._head(method)
            message = await self._exchange(
                b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body), number
            )
            if message is not None:
                result: dict[str, Any] = msgspec.json.decode(wire.result_of(message))
                return result
            await self._renew(session)
        raise UpstreamFaultError("The upstream forgets its sessions as soon as it begins them.")

    async def _listen(self) -> None:
        """Hear list changes: a GET stream in the legacy era, subscriptions/listen in the modern."""
        while True:
            try:
                if not await self._listen_once():
                    return
            except (NotSentError, BrokenError, TooLargeError, ToolbusError) as error:
                log.debug("upstream.stream_ended", extra={"reason": str(error)})
            await asyncio.sleep(_LISTEN_SECONDS)
            # Something may have changed while nobody listened.
            self._on_list_changed()

    async def _listen_once(self) -> bool:
        events = EventReader()

        def feed(piece: bytes) -> bool:
            for data in events.feed(piece):
                if wire.read(data).method == "notifications/tools/list_changed":
                    self._on_list_changed()
            return False

        if self._modern:
            params = {"notifications": {"toolsListChanged": True}}
            body = wire.request_body(
                next(self._numbers), "subscriptions/listen", params, modern=True
            )
            head = self._head("subscriptions/listen")
            request = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
        else:
            session = b"Mcp-Session-Id: %b\r\n" % self._session if self._session else b""
            request = b"GET %b HTTP/1.1\r\n%bMCP-Protocol-Version: %b\r\n%b\r\n" % (
                self._path, self._common, self._version.encode(), session,
            )  # fmt: skip
        head_of, _ = await self._pool.ask(request, feed, None)
        return head_of.is_stream


def described(told: dict[str, Any], era: str, version: str) -> Described:
    """What a discover or initialize result says."""
    tools = (told.get("capabilities") or {}).get("tools") or {}
    instructions = told.get("instructions")
    return Described(
        era,
        version,
        instructions[:4096] if isinstance(instructions, str) else "",
        bool(tools.get("listChanged")),
    )


def _message(head: Head, body: bytes) -> wire.Incoming:
    if head.status == _OK or body.startswith(b"{"):
        return wire.read(body)
    if head.status >= _SERVER_FAULT:
        raise UpstreamDeadError(f"The upstream answered HTTP {head.status}.")
    raise UpstreamFaultError(f"The upstream answered HTTP {head.status}.")


def _one_line(value: str) -> str:
    if "\r" in value or "\n" in value:
        raise UpstreamFaultError("A declared header holds a line break; mend the configuration.")
    return value
