"""Session with a session-based server over HTTP. It is renewed when the server drops it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from toolbus_common.concurrency import Tasks
from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.mcp_messages.client_capabilities import Kinds, declared
from toolbus_executor.mcp_messages.log_levels import NO_LEVEL, rank_of
from toolbus_executor.mcp_messages.request_builder import (
    call_body,
    head_of,
    initialize_body,
    notification_body,
    request_body,
    with_body,
)
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.transport.http1 import DEFAULT_SECONDS, Head
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks, sent_before
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.dispatcher import MessageDispatcher
from toolbus_executor.upstreams.mcp.http_transport import AnswerStream, Transport, message_in

log = logging.getLogger(__name__)

_BAD_REQUEST, _NOT_FOUND = 400, 404
_RESUME_SECONDS = 1.0  # pause before resuming a stream, if the server sends no retry interval
_LISTEN_PAUSE = 3.0  # seconds before a stream is reopened
_LISTEN_SECONDS = 300.0  # after this time a stream is reopened, because it may be broken
_BEGIN_SECONDS = 1.0
_ORDER_SECONDS = 2.0  # time for a server to accept a cancellation before further messages
_GOODBYE_SECONDS = 1.0


class HttpSession:
    """A session that declares certain kinds of input requests.

    If `listens` is set, the session opens a GET stream immediately, otherwise on the first
    subscription. If `lists` is set, the lists are refreshed whenever a notification may have been
    missed.
    """

    def __init__(
        self,
        transport: Transport,
        news: UpstreamCallbacks,
        kinds: Kinds,
        *,
        listens: bool,
        lists: bool,
    ) -> None:
        self.id = b""
        self.described = Described("legacy", "")
        self._transport = transport
        self._news = news
        self._kinds = kinds
        self._listens = listens
        self._lists = lists
        self._dispatcher = MessageDispatcher(news, self._post_later)
        self._level = NO_LEVEL
        self._watched: frozenset[str] = frozenset()
        self._head = b""
        self._handshake = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._posting = Tasks()
        self._cancelling: asyncio.Task[None] | None = None  # the newest cancellation being sent

    @property
    def busy(self) -> bool:
        """Whether the session has calls in progress."""
        return bool(self._dispatcher.callers)

    async def open(self) -> Described:
        """Perform the handshake and open the session."""
        number = next(self._transport.numbers)
        answer = AnswerStream(number)
        head = head_of(self._transport.prefix, "", "", modern=False, version="", session=b"")
        request = with_body(head, initialize_body(number, declared(self._kinds)))
        response, text = await self._transport.exchange(request, answer, DEFAULT_SECONDS)
        described = messages.greeted(answer.message or message_in(response, text, number))
        session = response.headers.get(b"mcp-session-id", b"")
        head = head_of(
            self._transport.prefix,
            "",
            "",
            modern=False,
            version=described.version,
            session=session,
        )
        body = notification_body("notifications/initialized")
        await self._transport.request(with_body(head, body), None, DEFAULT_SECONDS)
        # These are set last, because concurrent calls must not use an incomplete session.
        self.id, self.described, self._head = session, described, head
        self._level, self._dispatcher.raised, self._watched = NO_LEVEL, False, frozenset()
        await self._restart_listening()
        return described

    async def request(self, method: str, params: dict[str, Any]) -> messages.Incoming:
        """Send a request of Toolbus itself and return the response.

        If the server dropped the session, the session is renewed once.
        """
        for _ in range(2):
            session, number = self.id, next(self._transport.numbers)
            body = request_body(number, method, params, modern=False)
            answer = AnswerStream(number, self._dispatcher.take_apart)
            message = await self._send(number, body, answer, DEFAULT_SECONDS)
            if message is not None:
                return message
            await self._renew(session)
        raise _session_lost()

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> messages.Incoming:
        """Send a call and return the response.

        If the server dropped the session, the session is renewed once.
        """
        began = monotonic()
        if call.log_level:
            await self._raise_level(call.log_level)
        if not self._listens and '"task"' in call.extra:
            await self._start_listening()  # for notifications about tasks
        for _ in range(2):
            session = self.id
            left = seconds - (monotonic() - began)
            message = await self._call(call, left, caller)
            if message is not None:
                return message
            # The server executes no call of an unknown session, so a retry is safe.
            async with asyncio.timeout(seconds - (monotonic() - began)):
                await self._renew(session)
        raise _session_lost()

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to exactly these resources."""
        if uris:
            await self._start_listening()
        for uri in sorted(uris - self._watched):
            messages.result_of(await self.request("resources/subscribe", {"uri": uri}))
            self._watched |= {uri}
        for uri in sorted(self._watched - uris):
            self._watched -= {uri}
            await self.request("resources/unsubscribe", {"uri": uri})

    def notify(self, method: str) -> None:
        """Send a notification without params."""
        self._post_later(notification_body(method))

    async def close(self) -> None:
        """Close the stream and delete the session."""
        if self._listening is not None:
            self._listening.cancel()
        await self._posting.finish(_GOODBYE_SECONDS)
        if self.id:
            with suppress(ToolbusError, TimeoutError):
                request = self._transport.bare(b"DELETE", self._own_headers())
                await self._transport.request(request, None, _GOODBYE_SECONDS)

    # -- one call ----------------------------------------------------------------------------

    async def _call(
        self, call: CallAdmitted, seconds: float, caller: Caller
    ) -> messages.Incoming | None:
        number = next(self._transport.numbers)
        answer = AnswerStream(number, partial(self._dispatcher.take, caller=caller), caller)
        with self._dispatcher.call(number, caller):
            try:
                body = call_body(call, number, modern=False)
                lines = self._transport.lines_of(call)
                return await self._send(number, body, answer, seconds, caller.paused, lines)
            except (TimeoutError, asyncio.CancelledError):
                cancelled = {"requestId": number}
                notification = notification_body("notifications/cancelled", cancelled)
                self._cancelling = self._posting.start(self._post(notification))
                raise

    async def _send(
        self,
        number: int,
        body: bytes,
        answer: AnswerStream,
        seconds: float,
        on_paused: Callable[[float], None] = lambda _seconds: None,
        lines: bytes = b"",
    ) -> messages.Incoming | None:
        """Send a request and return the response; None if the server dropped the session.

        A stream that ends before the response is resumed (MCP 2025-11-25, resumability).
        """
        began = monotonic()
        head: Head | None = None
        text = b""
        try:
            request = with_body(self._head + lines, body)
            head, text = await self._transport.exchange(request, answer, seconds)
        except UpstreamDeadError:
            if not answer.events.last_id:
                raise  # without an event id the stream cannot be resumed
        while answer.message is None and answer.events.last_id and (head is None or head.is_stream):
            pause = answer.events.retry or _RESUME_SECONDS
            if head is not None:  # the server closed the stream regularly
                on_paused(pause)
            await asyncio.sleep(pause)
            with sent_before():
                left = max(seconds - (monotonic() - began), answer.left())
                head, text = await self._resume(answer, left)
        if answer.message is not None:
            return answer.message
        assert head is not None  # noqa: S101 - without an event id the error was raised
        if self.id and _is_unknown_session(head, text):
            return None
        return message_in(head, text, number)

    async def _resume(self, answer: AnswerStream, seconds: float) -> tuple[Head, bytes]:
        """Request the rest of a stream that ended before the response."""
        if seconds <= 0:
            raise TimeoutError
        answer.events.restart()
        last = b"Last-Event-ID: %b\r\n" % answer.events.last_id
        request = self._transport.bare(b"GET", self._own_headers() + last)
        head, text = await self._transport.exchange(request, answer, seconds)
        if not head.is_stream:
            raise GarbageError(
                "The upstream interrupted its response and cannot resume it; fix the server."
            )
        return head, text

    async def _raise_level(self, level: str) -> None:
        """Set the server's log level to this level, if it is more verbose than before."""
        rank = rank_of(level)
        if rank >= self._level or not self.described.has("logging"):
            return
        self._level, self._dispatcher.raised = rank, True
        await self.request("logging/setLevel", {"level": level})

    def _post_later(self, body: bytes) -> None:
        """Send a message that expects no response, in the background."""
        self._posting.start(self._post(body, self._cancelling))

    async def _post(self, body: bytes, after: "asyncio.Task[None] | None" = None) -> None:
        """Send a message, but first wait until the cancellation `after` is sent.

        The server must learn first that the call has ended. Otherwise the server treats the
        answers to the call's requests as answers of the client.
        """
        if after is not None and not after.done():
            await asyncio.wait((after,), timeout=_ORDER_SECONDS)
        try:
            await self._transport.request(with_body(self._head, body), None, DEFAULT_SECONDS)
        except (ToolbusError, TimeoutError) as error:
            log.debug("upstream.message_not_sent", extra={"reason": str(error)})

    # -- the session itself ------------------------------------------------------------------

    async def _renew(self, stale: bytes) -> None:
        async with self._handshake:
            if self.id != stale:
                return  # another call has renewed it
            watched = self._watched
            await self.open()
        if watched:
            await self.watch(watched)
        self._news.on_lists_changed()

    def _own_headers(self) -> bytes:
        version = b"MCP-Protocol-Version: %b\r\n" % self.described.version.encode()
        return (b"Mcp-Session-Id: %b\r\n" % self.id if self.id else b"") + version

    async def _start_listening(self) -> None:
        if not self._listens:
            self._listens = True
            await self._restart_listening()

    async def _restart_listening(self) -> None:
        """Open the GET stream, because the server can send messages of calls on it.

        Return when the stream is open, or after `_BEGIN_SECONDS`.
        """
        if self._listening is not None:
            self._listening.cancel()
        if self._listens:
            opened = asyncio.Event()
            self._listening = asyncio.create_task(self._listen(opened))
            # Some servers send the response head with the first message.
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEGIN_SECONDS):
                    await opened.wait()

    async def _listen(self, opened: asyncio.Event) -> None:
        """Receive messages outside of responses on a GET stream. Reopen the stream when it ends."""
        while True:
            try:
                if not await self._listen_once(opened):
                    return
            except (ToolbusError, TimeoutError) as error:
                log.debug("upstream.stream_ended", extra={"reason": str(error)})
            await asyncio.sleep(_LISTEN_PAUSE)
            if self._lists:  # a change may have been missed without a stream
                self._news.on_lists_changed()

    async def _listen_once(self, opened: asyncio.Event) -> bool:
        answer = AnswerStream(0, self._dispatcher.take)
        request = self._transport.bare(b"GET", self._own_headers())

        def feed(piece: bytes) -> bool:
            opened.set()
            return answer.feed(piece)

        try:
            head, _ = await self._transport.request(request, feed, _LISTEN_SECONDS)
        finally:
            opened.set()  # also if the stream cannot be opened
        return head.is_stream


def _is_unknown_session(head: Head, body: bytes) -> bool:
    """Return whether a response means that the server does not know the session.

    MCP 2025-11-25 specifies 404; several servers return 400 and mention the session in the text.
    """
    return head.status == _NOT_FOUND or (
        head.status == _BAD_REQUEST and b"session" in body[:1024].lower()
    )


def _session_lost() -> UpstreamInvalidError:
    return GarbageError("The upstream dropped a new session immediately, twice; check the server.")
