"""One session with a handshake-family server over HTTP, re-created when the server drops it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamFaultError
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
from toolbus_executor.upstreams.base import Described, News, sent_before
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.dispatcher import Switchboard
from toolbus_executor.upstreams.mcp.http_transport import AnswerStream, Transport, message_in

log = logging.getLogger(__name__)

_BAD_REQUEST, _NOT_FOUND = 400, 404
_COME_BACK_SECONDS = 1.0  # when a server closes a stream and does not say when to come back
_LISTEN_PAUSE = 3.0  # seconds between two streams
_LISTEN_SECONDS = 300.0  # a stream that died without a word is noticed by beginning a new one
_BEGIN_SECONDS = 1.0
_GOODBYE_SECONDS = 1.0


class HttpSession:
    """A session that declares certain kinds of questions.

    It `listens` on a stream of its own, or begins to when somebody subscribes in it. What it
    `lists` is listed anew where something may have been missed.
    """

    def __init__(
        self, transport: Transport, news: News, kinds: Kinds, *, listens: bool, lists: bool
    ) -> None:
        self.id = b""
        self.described = Described("legacy", "")
        self._transport = transport
        self._news = news
        self._kinds = kinds
        self._listens = listens
        self._lists = lists
        self._board = Switchboard(news, self._post_later)
        self._level = NO_LEVEL
        self._watched: frozenset[str] = frozenset()
        self._head = b""
        self._handshake = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._posting: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether calls are under way on it."""
        return bool(self._board.callers)

    async def open(self) -> Described:
        """Shake hands."""
        number = next(self._transport.numbers)
        answer = AnswerStream(number)
        head = head_of(self._transport.prefix, "", "", modern=False, version="", session=b"")
        request = with_body(head, initialize_body(number, declared(self._kinds)))
        told, text = await self._transport.exchange(request, answer, DEFAULT_SECONDS)
        described = messages.greeted(answer.message or message_in(told, text, number))
        session = told.headers.get(b"mcp-session-id", b"")
        head = head_of(
            self._transport.prefix,
            "",
            "",
            modern=False,
            version=described.version,
            session=session,
        )
        body = notification_body("notifications/initialized")
        await self._transport.ask(with_body(head, body), None, DEFAULT_SECONDS)
        # Only now: calls beside this one must not meet a session that is half begun.
        self.id, self.described, self._head = session, described, head
        self._level, self._board.raised, self._watched = NO_LEVEL, False, frozenset()
        await self._listen_anew()
        return described

    async def request(self, method: str, params: dict[str, Any]) -> messages.Incoming:
        """A request of our own."""
        for _ in range(2):
            session, number = self.id, next(self._transport.numbers)
            body = request_body(number, method, params, modern=False)
            answer = AnswerStream(number, self._board.take_apart)
            message = await self._send(number, body, answer, DEFAULT_SECONDS)
            if message is not None:
                return message
            await self._renew(session)
        raise _forgetful()

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> messages.Incoming:
        """Ask; a session the server has forgotten is begun anew, once."""
        began = monotonic()
        if call.log_level:
            await self._raise_level(call.log_level)
        if not self._listens and '"task"' in call.extra:
            await self._listen_from_now()  # the server tells of its tasks there
        for _ in range(2):
            session = self.id
            left = seconds - (monotonic() - began)
            message = await self._call(call, left, caller)
            if message is not None:
                return message
            # The server ran nothing for a session it does not know, so asking again is safe.
            async with asyncio.timeout(seconds - (monotonic() - began)):
                await self._renew(session)
        raise _forgetful()

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to what is new of these and unsubscribe from what is gone."""
        if uris:
            await self._listen_from_now()
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
        """End the stream and the session."""
        if self._listening is not None:
            self._listening.cancel()
        if self._posting:
            await asyncio.wait(self._posting, timeout=_GOODBYE_SECONDS)
        if self.id:
            with suppress(ToolbusError, TimeoutError):
                request = self._transport.bare(b"DELETE", self._own_headers())
                await self._transport.ask(request, None, _GOODBYE_SECONDS)

    # -- one call ----------------------------------------------------------------------------

    async def _call(
        self, call: CallAdmitted, seconds: float, caller: Caller
    ) -> messages.Incoming | None:
        number = next(self._transport.numbers)
        answer = AnswerStream(number, partial(self._board.take, caller=caller), caller)
        with self._board.call(number, caller):
            try:
                body = call_body(call, number, modern=False)
                lines = self._transport.lines_of(call)
                return await self._send(number, body, answer, seconds, caller.paused, lines)
            except (TimeoutError, asyncio.CancelledError):
                told = {"requestId": number}
                self._post_later(notification_body("notifications/cancelled", told))
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
        """One request and its message; None when the server does not know the session."""
        began = monotonic()
        told, text = await self._begin(with_body(self._head + lines, body), answer, seconds)
        while answer.message is None and answer.events.last_id and (told is None or told.is_stream):
            pause = answer.events.retry or _COME_BACK_SECONDS
            if told is not None:  # it closed the stream in good order
                on_paused(pause)
            await asyncio.sleep(pause)
            with sent_before():
                left = max(seconds - (monotonic() - began), answer.left())
                told, text = await self._come_back(answer, left)
        if answer.message is not None:
            return answer.message
        assert told is not None  # noqa: S101 - without an id to come back with it was raised
        if self.id and _forgets(told, text):
            return None
        return message_in(told, text, number)

    async def _begin(
        self, request: bytes, answer: AnswerStream, seconds: float
    ) -> tuple[Head | None, bytes]:
        try:
            return await self._transport.exchange(request, answer, seconds)
        except UpstreamDeadError:
            if not answer.events.last_id:
                raise
            return None, b""  # the stream broke, and the server said how to go on with it

    async def _come_back(self, answer: AnswerStream, seconds: float) -> tuple[Head, bytes]:
        """Go on with a stream that ended before its answer (MCP 2025-11-25, resumability)."""
        if seconds <= 0:
            raise TimeoutError
        answer.events.restart()
        last = b"Last-Event-ID: %b\r\n" % answer.events.last_id
        request = self._transport.bare(b"GET", self._own_headers() + last)
        told, text = await self._transport.exchange(request, answer, seconds)
        if not told.is_stream:
            raise GarbageError("The upstream broke off its answer and cannot go on with it.")
        return told, text

    async def _raise_level(self, level: str) -> None:
        """Have the server log as much as its most curious caller wants."""
        rank = rank_of(level)
        if rank >= self._level or not self.described.has("logging"):
            return
        self._level, self._board.raised = rank, True
        await self.request("logging/setLevel", {"level": level})

    def _post_later(self, body: bytes) -> None:
        """Send what needs no answer: our own answers, and cancellations."""
        task = asyncio.ensure_future(self._post(body))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def _post(self, body: bytes) -> None:
        try:
            await self._transport.ask(with_body(self._head, body), None, DEFAULT_SECONDS)
        except (ToolbusError, TimeoutError) as error:
            log.debug("upstream.not_told", extra={"reason": str(error)})

    # -- the session itself ------------------------------------------------------------------

    async def _renew(self, stale: bytes) -> None:
        async with self._handshake:
            if self.id != stale:
                return  # another call has renewed it meanwhile
            watched = self._watched
            await self.open()
        if watched:
            await self.watch(watched)
        self._news.changed()

    def _own_headers(self) -> bytes:
        version = b"MCP-Protocol-Version: %b\r\n" % self.described.version.encode()
        return (b"Mcp-Session-Id: %b\r\n" % self.id if self.id else b"") + version

    async def _listen_from_now(self) -> None:
        if not self._listens:
            self._listens = True
            await self._listen_anew()

    async def _listen_anew(self) -> None:
        """Begin to listen, before a call can make the server say something there."""
        if self._listening is not None:
            self._listening.cancel()
        if self._listens:
            begun = asyncio.Event()
            self._listening = asyncio.create_task(self._listen(begun))
            with suppress(TimeoutError):  # some servers begin a stream with its first message
                async with asyncio.timeout(_BEGIN_SECONDS):
                    await begun.wait()

    async def _listen(self, begun: asyncio.Event) -> None:
        """Hear what the server says outside of answers: a GET stream, opened again and again."""
        while True:
            try:
                if not await self._listen_once(begun):
                    return
            except (ToolbusError, TimeoutError) as error:
                log.debug("upstream.stream_ended", extra={"reason": str(error)})
            await asyncio.sleep(_LISTEN_PAUSE)
            if self._lists:  # something may have changed while nobody listened
                self._news.changed()

    async def _listen_once(self, begun: asyncio.Event) -> bool:
        answer = AnswerStream(0, self._board.take)
        request = self._transport.bare(b"GET", self._own_headers())

        def feed(piece: bytes) -> bool:
            begun.set()
            return answer.feed(piece)

        try:
            head, _ = await self._transport.ask(request, feed, _LISTEN_SECONDS)
        finally:
            begun.set()  # or it will not begin, and nobody need wait
        return head.is_stream


def _forgets(head: Head, body: bytes) -> bool:
    """Whether this is how a server answers for a session it does not know.

    MCP 2025-11-25 says 404; several servers say 400 and name the session in words.
    """
    return head.status == _NOT_FOUND or (
        head.status == _BAD_REQUEST and b"session" in body[:1024].lower()
    )


def _forgetful() -> UpstreamFaultError:
    return GarbageError("The upstream forgets its sessions as soon as it begins them.")
