"""HTTP requests to one upstream URL, with redirects, tokens, DPoP and streamed responses."""

import asyncio
import itertools
from collections.abc import Callable
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import (
    ToolbusError,
    UnavailableError,
    UpstreamDeadError,
    UpstreamInvalidError,
)
from toolbus_executor.credentials.dpop import Prover
from toolbus_executor.credentials.oauth_token import Bearer, with_header
from toolbus_executor.mcp_messages.request_builder import CLIENT, trace_headers, trace_lines
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.results.large.spill_registry import MessageSpill, SpillRegistry
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.http1 import (
    BrokenError,
    Head,
    NotSentError,
    OnStream,
    Pool,
    TooLargeError,
)
from toolbus_executor.transport.redirects import (
    MAX_REDIRECTS,
    PERMANENT,
    SAME_METHOD,
    redirect_target,
)
from toolbus_executor.transport.sse_parser import EventReader
from toolbus_executor.upstreams.base import UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages

_OK, _REDIRECTION, _SERVER_ERROR = 200, 300, 500


class HttpStatusError(UpstreamInvalidError):
    """The upstream returned an HTTP error status without a message."""

    def __init__(self, reason: str, *, status: int = 0, **data: Any) -> None:
        super().__init__(reason, **data)
        self.status = status


class AnswerStream(MessageSpill):
    """Receiver of the response to one request from an event stream.

    All other messages of the stream are passed to `on_message`.
    """

    def __init__(
        self,
        number: int,
        on_message: Callable[[messages.Incoming], None] | None = None,
        caller: Caller | None = None,
    ) -> None:
        self._number = number
        self._on_message = on_message
        self._caller = caller
        self._events: EventReader | None = None
        self.streamed = False  # whether the response is an event stream
        self.message: messages.Incoming | None = None
        self.error: ToolbusError | None = None

    @property
    def events(self) -> EventReader:
        """The parser of the stream.

        It is created on first use, because most responses are no streams.
        """
        if self._events is None:
            self._events = EventReader()
        return self._events

    def feed(self, piece: bytes) -> bool:
        """Parse a piece of the stream, and return whether the stream can end."""
        events, self.streamed = self.events, True
        events.large = self
        try:
            for data in events.feed(piece):
                self._take(messages.read(data))
        except ToolbusError as error:
            self.error = error
        return events.spilled is not None or self.message is not None or self.error is not None

    __call__ = feed

    def left(self) -> float:
        """Return the seconds by which progress extends the time limit; 0 without progress."""
        return 0.0 if self._caller is None else self._caller.left()

    async def completed(self) -> None:
        """Read the stored message at the end of a stream, if one was too large for memory.

        Raises:
            ToolbusError: a message is malformed, or the stored message is not the response.

        """
        self.events.large = None  # breaks a reference cycle
        spill, self.events.spilled = self.events.spilled, None
        if spill is not None:
            try:
                self._take(messages.read(await self.ended(spill)))
            except BaseException:
                self.give_up()
                raise
            if self.message is None:
                raise UpstreamInvalidError(
                    "The upstream sent a message that is too large and is not the response; fix "
                    "the server."
                )
        if self.error is not None:
            raise self.error

    def give_up(self) -> None:
        """Discard the message that is being buffered, because no more data follows."""
        if self._events is None:
            return
        self._events.large = None
        spill = self._events.give_up()
        if spill is not None:
            self.abandon(spill)

    def _take(self, message: messages.Incoming) -> None:
        if not message.method and message.id == self._number:
            self.message = message
        elif self._on_message is not None:
            self._on_message(message)


class Transport:
    """The URL of one server, and the headers of every request to it."""

    def __init__(self, url: str, headers: dict[str, str], way: Dialer) -> None:
        target = urlsplit(url)
        self.url = url
        self._origin = f"{target.scheme}://{target.netloc.rpartition('@')[2]}"
        self.numbers = itertools.count(1)
        self.failed_since_response = False
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.spills: SpillRegistry | None = None
        self.bearer: Bearer | None = None  # set if the server requires OAuth
        self.identity = way.identity.at(url) if way.identity is not None else None
        self._pool = Pool(url, way)
        path = target.path or "/"
        own = "".join(f"{name}: {_one_line(value)}\r\n" for name, value in headers.items())
        self.common = (
            f"Host: {target.netloc.rpartition('@')[2]}\r\n"
            f"User-Agent: toolbus/{CLIENT['version']}\r\n{own}"
        ).encode()
        self._move((f"{path}?{target.query}" if target.query else path).encode())

    def _move(self, path: bytes) -> None:
        """Use this path for all further requests."""
        self._path, self.prefix = path, self.post_to(path)

    def post_to(self, path: bytes) -> bytes:
        """Return the beginning of every POST request to a path."""
        return (
            b"POST %b HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"Accept: application/json, text/event-stream\r\n%b" % (path, self.common)
        )

    def bare(self, verb: bytes, headers: bytes = b"") -> bytes:
        """Return a request without a body."""
        return b"%b %b HTTP/1.1\r\nAccept: text/event-stream\r\n%b%b\r\n" % (
            verb, self._path, self.common, headers,
        )  # fmt: skip

    def lines_of(self, call: CallAdmitted) -> bytes:
        """Return the header lines for a call: its trace context and its caller's identity."""
        lines = trace_lines(call)
        return lines if self.identity is None else lines + self.identity.line(call)

    def headers_of(self, call: CallAdmitted) -> list[tuple[str, str]]:
        """Return the headers for a call: its trace context and its caller's identity."""
        headers = trace_headers(call)
        return headers if self.identity is None else [*headers, self.identity.header(call)]

    async def request(
        self,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: MessageSpill | None = None,
        hops: int = 0,
        bearer: Bearer | None = None,
    ) -> tuple[Head, bytes]:
        """Send a request; return the head and the body of the response.

        Redirects on this origin are followed. If the server rejects the token, the request is
        repeated once with another token; the server did not process the rejected request.

        Args:
            request: the complete request without the token.
            on_stream: receives the pieces of an event stream.
            seconds: the time limit; None for no limit.
            large: stores a body that is too large for memory.
            hops: the number of redirects that were followed so far.
            bearer: the token for this request. The default is the token of the server.

        Raises:
            UpstreamDeadError: the upstream cannot be reached, or broke the connection.
            UpstreamInvalidError: the response is too large.
            TimeoutError: the time limit passed.

        """
        began, bearer = monotonic(), bearer or self.bearer
        try:
            if bearer is None and self.identity is None:
                response = await self._pool.request(request, on_stream, seconds, large)
            else:
                response = await self._identified(request, on_stream, seconds, large, bearer)
        except BaseException as error:
            if large is not None:
                large.give_up()
            if not isinstance(error, TooLargeError | NotSentError | BrokenError):
                raise
            raise self._failure(error) from error
        if response[0].status not in SAME_METHOD or hops == MAX_REDIRECTS:
            return response
        start, _, rest = request.partition(b"\r\n")
        verb, path, version = start.split(b" ")
        target = redirect_target(response[0], verb.decode(), f"{self._origin}{path.decode()}")
        if target is None:
            return response
        if response[0].status == PERMANENT and path == self._path:
            self._move(target.encode())
        again = b"%b %b %b\r\n%b" % (verb, target.encode(), version, rest)
        left = None if seconds is None else seconds - (monotonic() - began)
        return await self.request(again, on_stream, left, large, hops + 1, bearer)

    async def _identified(
        self,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: MessageSpill | None,
        bearer: Bearer | None,
    ) -> tuple[Head, bytes]:
        """Send a request with the identity header, with a token, or with both."""
        if self.identity is not None:
            try:
                request = self.identity.completed(request)
            except UnavailableError as error:
                raise UpstreamDeadError(error.reason, sent=False) from error
        if bearer is None:
            return await self._pool.request(request, on_stream, seconds, large)
        line = bearer.now() or await bearer.line()
        shown = with_header(request, line)
        response = await self._proven(shown, on_stream, seconds, large, bearer.prover)
        challenge = bearer.refusal(response[0])
        if challenge is None:
            return response
        shown = with_header(request, await bearer.another(line, challenge))
        return await self._proven(shown, on_stream, seconds, large, bearer.prover)

    async def _proven(
        self,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: MessageSpill | None,
        prover: Prover | None,
    ) -> tuple[Head, bytes]:
        """Send a request. If its token is bound to a key, add a DPoP proof.

        If the server only required a nonce, the request is repeated once with a new proof (RFC
        9449, section 8).
        """
        if prover is None:
            return await self._pool.request(request, on_stream, seconds, large)
        nonce = prover.nonce
        shown = with_header(request, prover.line(request, self._origin))
        response = await self._pool.request(shown, on_stream, seconds, large)
        if not prover.needs_retry(response[0], nonce):
            return response
        shown = with_header(request, prover.line(request, self._origin))
        return await self._pool.request(shown, on_stream, seconds, large)

    def _failure(self, error: TooLargeError | NotSentError | BrokenError) -> ToolbusError:
        """Return the error with which a call fails after this error of the HTTP exchange."""
        if isinstance(error, TooLargeError):
            return UpstreamInvalidError(f"The upstream's response is too large: {error}.")
        self.failed_since_response = True
        if isinstance(error, NotSentError):
            return UpstreamDeadError(f"The upstream cannot be reached: {error}.", sent=False)
        return UpstreamDeadError(f"The upstream broke the connection: {error}; check its log.")

    async def exchange(
        self, request: bytes, answer: AnswerStream, seconds: float | None
    ) -> tuple[Head, bytes]:
        """Send a request. `answer` receives the response if it is a stream.

        Raises:
            ToolbusError: `request` failed, or the stream cannot be parsed.

        """
        answer.spills = self.spills
        response = await self.request(request, answer, seconds, answer)
        if answer.streamed:
            await answer.completed()
        return response

    def result_of(self, message: messages.Incoming, news: UpstreamCallbacks) -> bytes:
        """Return the raw result of a call. Raises like `messages.result_of`.

        After a transport failure, the server may have changed, so it is listed or reconnected.
        """
        if message.error is not None or self.failed_since_response:
            failed, self.failed_since_response = self.failed_since_response, False
            if message.error_code in messages.REVISION_CHANGED or (
                failed and message.error is not None
            ):
                self.lose("Its protocol family has changed, so it is reconnected.")
            elif failed:
                news.on_lists_changed()
        return messages.result_of(message)

    async def wait_lost(self) -> str:
        """Wait until the server must be reconnected, and return the reason."""
        return await asyncio.shield(self.lost)

    def lose(self, reason: str) -> None:
        """Require that the server is reconnected, for this reason."""
        if not self.lost.done():
            self.lost.set_result(reason)

    def close(self) -> None:
        """Close the idle connections."""
        self.lose("closed")
        self._pool.close()


def message_in(head: Head, body: bytes, number: int) -> messages.Incoming:
    """Return the message in the response to the request `number`.

    Raises:
        UpstreamInvalidError: the response does not contain this message.
        UpstreamDeadError: the HTTP status is 5xx.

    """
    succeeded = _OK <= head.status < _REDIRECTION
    if succeeded and not body:
        raise GarbageError("The upstream ended its response without a result; fix the server.")
    if succeeded or body.startswith(b"{"):
        message = messages.read(body)
        if message.id == number or isinstance(message.error, dict):
            return message
        if succeeded:
            raise GarbageError(
                "The upstream responded to a request that was not sent; fix the server."
            )
    if head.status >= _SERVER_ERROR:
        raise UpstreamDeadError(f"The upstream returned HTTP {head.status}; check its log.")
    moved = (
        ": it redirects to another origin, or too often. Configure its current address."
        if head.status in SAME_METHOD
        else "."
    )
    raise HttpStatusError(f"The upstream returned HTTP {head.status}{moved}", status=head.status)


def _one_line(value: str) -> str:
    if "\r" in value or "\n" in value:
        raise UpstreamInvalidError(
            "A configured header contains a line break; fix the configuration."
        )
    return value
