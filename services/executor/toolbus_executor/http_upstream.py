"""An upstream over streamable HTTP, in either era: probed once, then called on the pool."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import msgspec

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import UpstreamDeadError, UpstreamFaultError
from toolbus_executor import wire
from toolbus_executor.events import EventReader
from toolbus_executor.http1 import (
    DEFAULT_SECONDS,
    BrokenError,
    Head,
    NotSentError,
    OnStream,
    Pool,
    TooLargeError,
)
from toolbus_executor.upstream import Described, OnProgress

log = logging.getLogger(__name__)

_OK, _REDIRECTION, _BAD_REQUEST, _NOT_FOUND, _SERVER_FAULT = 200, 300, 400, 404, 500
_OTHER_REVISION = (-32020, -32022)  # what a server answers whose revision has changed
_PROBE_SECONDS = 5.0
_LISTEN_PAUSE = 3.0  # seconds between two streams
_LISTEN_SECONDS = 300.0  # a stream that died without a word is noticed by beginning a new one
_GOODBYE_SECONDS = 1.0


class _Answer:
    """Collects one request's answer from an event stream."""

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
            told = wire.progress_of(message)
            if told is not None and told[0] == self._number:
                self._on_progress(told[1])
        elif not message.method and message.id == self._number:
            self.message = message


class HttpUpstream:
    """One server at a URL."""

    def __init__(
        self, url: str, headers: dict[str, str], on_list_changed: Callable[[], None]
    ) -> None:
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
        self._prefix = b"POST %b HTTP/1.1\r\nContent-Type: application/json\r\n%b" % (
            self._path,
            self._common,
        )
        self._modern = True
        self._version = wire.MODERN
        self._session = b""
        self._heads: dict[str, bytes] = {}
        self._shaken = False  # the transport failed since the last answer
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
        for _ in range(2):
            session, number = self._session, next(self._numbers)
            body = wire.request_body(number, "tools/list", params, modern=self._modern)
            request = wire.with_body(self._head("tools/list"), body)
            message = await self._exchange(request, number)
            if message is not None:
                result: dict[str, Any] = msgspec.json.decode(wire.result_of(message))
                return result
            await self._renew(session)
        raise _forgetful()

    async def call(
        self, call: CallAdmitted, seconds: float, on_progress: OnProgress | None
    ) -> bytes:
        """Call a tool; a session the server has forgotten is begun anew, once."""
        session, began = self._session, monotonic()
        message = await self._call(call, seconds, on_progress)
        if message is None:
            # The server ran nothing for a session it does not know, so asking again is safe.
            async with asyncio.timeout(seconds - (monotonic() - began)):
                await self._renew(session)
            left = seconds - (monotonic() - began)
            message = await self._call(call, left, on_progress)
        if message is None:
            raise _forgetful()
        if self._shaken or message.error is not None:
            self._reconsider(message)
        return wire.result_of(message)

    async def wait_lost(self) -> str:
        """HTTP has no connection to lose, but a server may come back as another one."""
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """End the stream, the session and the idle connections."""
        if self._listening is not None:
            self._listening.cancel()
        self._lose("closed")
        if self._session:
            with suppress(NotSentError, BrokenError, TooLargeError, TimeoutError):
                await self._pool.ask(self._bare(b"DELETE"), None, _GOODBYE_SECONDS)
        self._pool.close()

    # -- calling -----------------------------------------------------------------------------

    async def _call(
        self, call: CallAdmitted, seconds: float, on_progress: OnProgress | None
    ) -> wire.Incoming | None:
        number = next(self._numbers)
        body = wire.call_body(call, number, modern=self._modern)
        head = self._heads.get(call.tool)
        if head is None:
            head = self._heads[call.tool] = self._head("tools/call", call.tool)
        return await self._exchange(wire.with_body(head, body), number, seconds, on_progress)

    async def _exchange(
        self,
        request: bytes,
        number: int,
        seconds: float = DEFAULT_SECONDS,
        on_progress: OnProgress | None = None,
    ) -> wire.Incoming | None:
        """One request and its message; None when the server does not know our session."""
        answer = _Answer(number, on_progress)
        head, body = await self._ask(request, answer.feed, seconds)
        if answer.fault is not None:
            raise answer.fault
        if answer.message is not None:
            return answer.message
        if self._session and _forgets(head, body):
            return None
        return _message(head, body, number)

    async def _ask(
        self, request: bytes, on_stream: OnStream | None, seconds: float | None
    ) -> tuple[Head, bytes]:
        """Ask the pool; its failures as those of the upstream."""
        try:
            return await self._pool.ask(request, on_stream, seconds)
        except TooLargeError as error:
            raise UpstreamFaultError(f"The upstream's answer is too large: {error}.") from error
        except NotSentError as error:
            self._shaken = True
            raise UpstreamDeadError(f"The upstream cannot be reached: {error}.", sent=False) from (
                error
            )
        except BrokenError as error:
            self._shaken = True
            raise UpstreamDeadError(f"The upstream broke the connection: {error}.") from error

    def _reconsider(self, message: wire.Incoming) -> None:
        """After a failure of the transport another server may answer, or one with other tools."""
        code = message.error.get("code") if isinstance(message.error, dict) else None
        if code in _OTHER_REVISION or (self._shaken and message.error is not None):
            self._lose("It answers otherwise than before, so it is asked anew what it is.")
        elif self._shaken:
            self._on_list_changed()
        self._shaken = False

    def _lose(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)

    def _head(self, method: str, name: str = "") -> bytes:
        return wire.head_of(
            self._prefix,
            method,
            name,
            modern=self._modern,
            version=self._version,
            session=self._session,
        )

    def _bare(self, verb: bytes) -> bytes:
        """A request of the session itself: it has no body."""
        session = b"Mcp-Session-Id: %b\r\n" % self._session if self._session else b""
        return b"%b %b HTTP/1.1\r\n%bMCP-Protocol-Version: %b\r\n%b\r\n" % (
            verb, self._path, self._common, self._version.encode(), session,
        )  # fmt: skip

    # -- the beginning -----------------------------------------------------------------------

    async def _discover(self) -> Described | None:
        number = next(self._numbers)
        body = wire.request_body(number, "server/discover", {}, modern=True)
        request = wire.with_body(self._head("server/discover"), body)
        try:
            message = await self._exchange(request, number, _PROBE_SECONDS)
        except (UpstreamFaultError, TimeoutError):
            return None
        except UpstreamDeadError as error:
            if not error.data.get("sent", True):
                raise
            return None  # it broke off at a request it did not know
        return wire.discovered(message) if message is not None else None

    async def _initialize(self) -> Described:
        number = next(self._numbers)
        answer = _Answer(number, None)
        head = wire.head_of(self._prefix, "", "", modern=False, version="", session=b"")
        request = wire.with_body(head, wire.initialize_body(number))
        told, text = await self._ask(request, answer.feed, DEFAULT_SECONDS)
        if answer.fault is not None:
            raise answer.fault
        described = wire.greeted(answer.message or _message(told, text, number))
        session = told.headers.get(b"mcp-session-id", b"")
        head = wire.head_of(
            self._prefix, "", "", modern=False, version=described.version, session=session
        )
        body = wire.notification_body("notifications/initialized")
        await self._ask(wire.with_body(head, body), None, DEFAULT_SECONDS)
        # Only now: calls beside this one must not meet a session that is half begun.
        self._session, self._version = session, described.version
        self._heads.clear()
        return described

    async def _renew(self, stale: bytes) -> None:
        async with self._handshake:
            if self._session != stale:
                return  # another call has renewed it meanwhile
            described = await self._initialize()
        self._on_list_changed()
        if self._listening is not None:
            self._listening.cancel()
        if described.lists_change:
            self._listening = asyncio.create_task(self._listen())

    # -- list changes ------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Hear list changes: a GET stream in the legacy era, subscriptions/listen in the modern."""
        while True:
            try:
                if not await self._listen_once():
                    return
            except (NotSentError, BrokenError, TooLargeError, TimeoutError) as error:
                log.debug("upstream.stream_ended", extra={"reason": str(error)})
            await asyncio.sleep(_LISTEN_PAUSE)
            # Something may have changed while nobody listened.
            self._on_list_changed()

    async def _listen_once(self) -> bool:
        events = EventReader()

        def feed(piece: bytes) -> bool:
            for data in events.feed(piece):
                if wire.read(data).method == "notifications/tools/list_changed":
                    self._on_list_changed()
            return False

        request = self._bare(b"GET")
        if self._modern:
            body = wire.listen_body(next(self._numbers))
            request = wire.with_body(self._head("subscriptions/listen"), body)
        head, _ = await self._pool.ask(request, feed, _LISTEN_SECONDS)
        return head.is_stream


def _forgets(head: Head, body: bytes) -> bool:
    """Whether this is how a server answers for a session it does not know.

    MCP 2025-11-25 says 404; several servers say 400 and name the session in words.
    """
    return head.status == _NOT_FOUND or (
        head.status == _BAD_REQUEST and b"session" in body[:1024].lower()
    )


def _message(head: Head, body: bytes, number: int) -> wire.Incoming:
    """The answer to a request. Raises `UpstreamFaultError` or, for 5xx, `UpstreamDeadError`."""
    fine = _OK <= head.status < _REDIRECTION
    if fine and not body:
        raise UpstreamFaultError("The upstream ended its answer without a result.")
    if fine or body.startswith(b"{"):
        message = wire.read(body)
        if message.id == number or isinstance(message.error, dict):
            return message
        if fine:
            raise UpstreamFaultError("The upstream answered a request that was not asked.")
    if head.status >= _SERVER_FAULT:
        raise UpstreamDeadError(f"The upstream answered HTTP {head.status}.")
    raise UpstreamFaultError(f"The upstream answered HTTP {head.status}.")


def _forgetful() -> UpstreamFaultError:
    return UpstreamFaultError("The upstream forgets its sessions as soon as it begins them.")


def _one_line(value: str) -> str:
    if "\r" in value or "\n" in value:
        raise UpstreamFaultError("A declared header holds a line break; mend the configuration.")
    return value
