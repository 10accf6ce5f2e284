"""Requests to one URL and their answers, whole or as events; the failures are the upstream's."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import (
    ToolbusError,
    UnavailableError,
    UpstreamDeadError,
    UpstreamFaultError,
)
from toolbus_executor.credentials.dpop import Prover
from toolbus_executor.credentials.oauth_token import Bearer, authorized
from toolbus_executor.identity.header import Identity
from toolbus_executor.mcp_messages.request_builder import CLIENT, trace_headers, trace_lines
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.results.large.spill_registry import Answering, Spills
from toolbus_executor.transport.dialer import Way
from toolbus_executor.transport.http1 import (
    BrokenError,
    Head,
    NotSentError,
    OnStream,
    Pool,
    TooLargeError,
)
from toolbus_executor.transport.redirects import MOST_REDIRECTS, PERMANENT, SAME_METHOD, followed
from toolbus_executor.transport.sse_parser import EventReader
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages

_OK, _REDIRECTION, _SERVER_FAULT = 200, 300, 500
Ask = Callable[
    [bytes, OnStream | None, float | None, Answering | None], Awaitable[tuple[Head, bytes]]
]


class HttpStatusError(UpstreamFaultError):
    """The upstream answered with a status and no message."""

    def __init__(self, reason: str, *, status: int = 0, **data: Any) -> None:
        super().__init__(reason, **data)
        self.status = status


class AnswerStream(Answering):
    """Collects one request's answer from an event stream; the rest goes to `hear`."""

    def __init__(
        self,
        number: int,
        hear: Callable[[messages.Incoming], None] | None = None,
        caller: Caller | None = None,
    ) -> None:
        self._number = number
        self._hear = hear
        self._caller = caller
        self.events = EventReader()
        self.message: messages.Incoming | None = None
        self.fault: ToolbusError | None = None

    def feed(self, piece: bytes) -> bool:
        """Take a piece of a stream; True once the answer is there."""
        try:
            for data in self.events.feed(piece):
                self._take(messages.read(data))
        except ToolbusError as error:
            self.fault = error
        spilled = self.events.spilled is not None
        return spilled or self.message is not None or self.fault is not None

    __call__ = feed

    def left(self) -> float:
        """Return the seconds to wait on, once the time for the answer is over."""
        return 0.0 if self._caller is None else self._caller.left()

    async def gathered(self) -> None:
        """Take the message that was too large to hold. Raises `ToolbusError`."""
        spill, self.events.spilled = self.events.spilled, None
        if spill is None:
            return
        self._take(messages.read(await self.ended(spill)))
        if self.message is None:
            raise UpstreamFaultError("The upstream said something too large that is no answer.")

    def give_up(self) -> None:
        """Nothing more will come."""
        spill = self.events.give_up()
        if spill is not None:
            self.abandon(spill)

    def _take(self, message: messages.Incoming) -> None:
        if not message.method and message.id == self._number:
            self.message = message
        elif self._hear is not None:
            self._hear(message)


class Transport:
    """One server's URL, with the headers every request carries."""

    def __init__(self, url: str, headers: dict[str, str], way: Way) -> None:
        target = urlsplit(url)
        self.url = url
        self._origin = f"{target.scheme}://{target.netloc.rpartition('@')[2]}"
        self.numbers = itertools.count(1)
        self.shaken = False  # the transport failed since the last answer
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.spills: Spills | None = None
        self.bearer: Bearer | None = None  # where the server wants OAuth
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
        """Send every request from now on to this path."""
        self._path, self.prefix = path, self.post_to(path)

    def post_to(self, path: bytes) -> bytes:
        """The beginning of every POST to a path."""
        return (
            b"POST %b HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"Accept: application/json, text/event-stream\r\n%b" % (path, self.common)
        )

    def bare(self, verb: bytes, headers: bytes = b"") -> bytes:
        """A request without a body."""
        return b"%b %b HTTP/1.1\r\nAccept: text/event-stream\r\n%b%b\r\n" % (
            verb, self._path, self.common, headers,
        )  # fmt: skip

    def lines_of(self, call: CallAdmitted) -> bytes:
        """The lines of a request's head that are this call's own."""
        lines = trace_lines(call)
        return lines if self.identity is None else lines + self.identity.line(call)

    def headers_of(self, call: CallAdmitted) -> list[tuple[str, str]]:
        """The same as names and values."""
        told = trace_headers(call)
        return told if self.identity is None else [*told, self.identity.header(call)]

    async def ask(
        self,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: Answering | None = None,
        hops: int = 0,
        bearer: Bearer | None = None,
    ) -> tuple[Head, bytes]:
        """Ask the pool, and follow redirects on this origin; failures are those of the upstream.

        `bearer` has the token of this request, where that is not everybody's.
        """
        if self.identity is not None:
            request = _completed(self.identity, request)
        began = monotonic()
        bearer = bearer or self.bearer
        if bearer is None:
            told = await self._ask(request, on_stream, seconds, large)
        else:
            told = await self._ask_authorized(bearer, request, on_stream, seconds, large)
        if told[0].status not in SAME_METHOD or hops == MOST_REDIRECTS:
            return told
        line, _, rest = request.partition(b"\r\n")
        verb, path, version = line.split(b" ")
        target = followed(told[0], verb.decode(), f"{self._origin}{path.decode()}")
        if target is None:
            return told
        if told[0].status == PERMANENT and path == self._path:
            self._move(target.encode())
        again = b"%b %b %b\r\n%b" % (verb, target.encode(), version, rest)
        left = None if seconds is None else seconds - (monotonic() - began)
        return await self.ask(again, on_stream, left, large, hops + 1, bearer)

    async def _ask_authorized(
        self,
        bearer: Bearer,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: Answering | None,
    ) -> tuple[Head, bytes]:
        """The same with a token; once more with another, where the server did nothing for want."""
        line = bearer.now() or await bearer.line()
        shown = authorized(request, line)
        told = await self._asking(bearer.prover)(shown, on_stream, seconds, large)
        refusal = bearer.refusal(told[0])
        if refusal is None:
            return told
        shown = authorized(request, await bearer.another(line, refusal))
        return await self._asking(bearer.prover)(shown, on_stream, seconds, large)

    def _asking(self, prover: Prover | None) -> Ask:
        """How a request is made; one without a bound token pays nothing for those with one."""
        return self._ask if prover is None else partial(self._ask_proven, prover)

    async def _ask_proven(
        self,
        prover: Prover,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: Answering | None,
    ) -> tuple[Head, bytes]:
        """The same with a proof; once more where the server did nothing but want a nonce in it."""
        used = prover.nonce
        shown = authorized(request, prover.line(request, self._origin))
        told = await self._ask(shown, on_stream, seconds, large)
        if not prover.wants_again(told[0], used):
            return told
        shown = authorized(request, prover.line(request, self._origin))
        return await self._ask(shown, on_stream, seconds, large)

    async def _ask(
        self,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: Answering | None,
    ) -> tuple[Head, bytes]:
        try:
            return await self._pool.ask(request, on_stream, seconds, large)
        except TooLargeError as error:
            raise UpstreamFaultError(f"The upstream's answer is too large: {error}.") from error
        except NotSentError as error:
            self.shaken = True
            raise UpstreamDeadError(f"The upstream cannot be reached: {error}.", sent=False) from (
                error
            )
        except BrokenError as error:
            self.shaken = True
            raise UpstreamDeadError(f"The upstream broke the connection: {error}.") from error

    async def exchange(
        self, request: bytes, answer: AnswerStream, seconds: float | None
    ) -> tuple[Head, bytes]:
        """Ask for one message; a stream that cannot be understood is a fault."""
        if self.spills is None:
            told = await self.ask(request, answer, seconds)
        else:
            told = await self._exchange_large(request, answer, seconds, self.spills)
        if answer.fault is not None:
            raise answer.fault
        return told

    async def _exchange_large(
        self, request: bytes, answer: AnswerStream, seconds: float | None, spills: Spills
    ) -> tuple[Head, bytes]:
        """The same where an answer too large to hold is kept."""
        answer.spills, answer.events.large = spills, answer
        try:
            told = await self.ask(request, answer, seconds, answer)
            if answer.events.spilled is not None:
                await answer.gathered()
        except BaseException:
            answer.give_up()
            raise
        finally:
            answer.events.large = None  # or the two hold each other until the collector comes
        return told

    async def wait_lost(self) -> str:
        """Wait until it was lost; a sentence why."""
        return await asyncio.shield(self.lost)

    def lose(self, reason: str) -> None:
        """The server is of no more use as it was met."""
        if not self.lost.done():
            self.lost.set_result(reason)

    def close(self) -> None:
        """Close what is idle."""
        self.lose("closed")
        self._pool.close()


def _completed(identity: Identity, request: bytes) -> bytes:
    """The request with a word on who makes it, be it ourselves. Raises `UpstreamDeadError`."""
    try:
        return identity.completed(request)
    except UnavailableError as error:
        raise UpstreamDeadError(error.reason, sent=False) from error


def message_in(head: Head, body: bytes, number: int) -> messages.Incoming:
    """The answer to a request. Raises `UpstreamFaultError`; for 5xx `UpstreamDeadError`."""
    fine = _OK <= head.status < _REDIRECTION
    if fine and not body:
        raise GarbageError("The upstream ended its answer without a result.")
    if fine or body.startswith(b"{"):
        message = messages.read(body)
        if message.id == number or isinstance(message.error, dict):
            return message
        if fine:
            raise GarbageError("The upstream answered a request that was not asked.")
    if head.status >= _SERVER_FAULT:
        raise UpstreamDeadError(f"The upstream answered HTTP {head.status}.")
    moved = (
        ": it redirects to another origin, or too often. Declare the address it has now."
        if head.status in SAME_METHOD
        else "."
    )
    raise HttpStatusError(f"The upstream answered HTTP {head.status}{moved}", status=head.status)


def _one_line(value: str) -> str:
    if "\r" in value or "\n" in value:
        raise UpstreamFaultError("A declared header holds a line break; mend the configuration.")
    return value
