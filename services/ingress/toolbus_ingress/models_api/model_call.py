"""One model request: a governed call for each target that is tried, and the HTTP response."""

import asyncio
import re
from time import perf_counter, time
from typing import Protocol

from msgspec import Struct

from toolbus_common.access.principal import Principal
from toolbus_common.config import Configuration, ModelTarget, Patterns
from toolbus_common.contracts import (
    CallNotification,
    CallRequested,
    CallResult,
    Notification,
    ProtocolFamily,
)
from toolbus_common.contracts.base import trusted
from toolbus_common.contracts.model_calls import (
    CACHE,
    CacheNote,
    ModelCall,
    decode_cache_note,
    model_name,
)
from toolbus_common.errors import CallCancelledError, OutcomeUnknownError, ToolbusError
from toolbus_common.model_api import routing
from toolbus_common.model_api.fallbacks import first_answer
from toolbus_common.observability.call_metrics import call_count
from toolbus_common.observability.metrics import MODEL_REQUESTS, MODEL_SECONDS
from toolbus_common.observability.tracing import Span, current
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.http.jsonrpc import OK, Response
from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.mcp.tracing import TraceContext
from toolbus_ingress.models_api import errors
from toolbus_ingress.models_api.chunk_stream import LARGEST_UNREAD, ChunkStream
from toolbus_ingress.models_api.errors import Dialect
from toolbus_ingress.models_api.request_reader import ModelRequest
from toolbus_ingress.sessions.sse_writer import DisconnectWatch
from toolbus_ingress.sessions.suggestions import SUGGESTION

MODEL, CALL_ID, FALLBACKS = b"x-toolbus-model", b"x-toolbus-call-id", b"x-toolbus-fallbacks"
CACHE_STATUS, CACHE_KEY, AGE = b"x-toolbus-cache", b"x-toolbus-cache-key", b"age"
_OK = call_count(MODEL_REQUESTS.labels("ok"))
_SECONDS = MODEL_SECONDS.labels("")
_STOPPED = (
    "The gateway stopped before the response ended. The request may have been executed: check the "
    "audit log before repeating it."
)
_UNREAD = (
    f"The client left more than {LARGEST_UNREAD // 2**20} MiB of the stream unread, so the request "
    "was cancelled. Read the stream faster, or request a response without a stream."
)
_LOST = (
    "A part of the stream was lost between services of the gateway, so the request was cancelled. "
    "Repeat it."
)

Pairs = tuple[tuple[bytes, bytes], ...]
_DIRECTIVES = (b"no-store", b"no-cache")  # the strictest first
_BETAS = re.compile(rb"[A-Za-z0-9._, -]{1,1024}")
_call_requested = trusted(CallRequested)


class Answered(Protocol):
    """The call that answers a request."""

    @property
    def call_id(self) -> str:
        """The id of the call."""
        ...

    @property
    def headers(self) -> Pairs:
        """The headers that tell the client how its request was served."""
        ...

    def receive(self, notification: CallNotification) -> None:
        """Accept a notification that is not a part of a stream."""
        ...


class Attempt(Struct):
    """A call to one target. `number` counts the targets that were tried before.

    `link` is the link for tool calls that the response suggests; empty if no tools were offered.
    `cache` is how the cache of responses was used; None if it was not.
    """

    target: ModelTarget
    call_id: str
    number: int
    link: bytes = b""
    cache: CacheNote | None = None

    @property
    def headers(self) -> Pairs:
        """The headers that tell the client how its request was served."""
        name = model_name(self.target.provider, self.target.model)
        own: Pairs = ((MODEL, name.encode()), (CALL_ID, self.call_id.encode()))
        if self.link:
            own = (*own, (SUGGESTION, self.link))
        if self.cache is not None:
            own = (*own, *_cache_headers(self.cache))
        return (*own, (FALLBACKS, b"%d" % self.number)) if self.number else own

    def receive(self, notification: CallNotification) -> None:
        """Store how the cache was used. Other notifications are ignored."""
        if type(notification) is Notification and notification.method == CACHE:
            self.cache = decode_cache_note(notification.body)


class ModelRun:
    """One model request of a caller. It is cancelled as soon as its client disconnects."""

    def __init__(
        self,
        endpoint: Endpoint,
        context: RequestContext,
        request: ModelRequest,
        dialect: Dialect,
        restrictions: tuple[Patterns, ...],
        trace: TraceContext,
        run: str,
    ) -> None:
        self._endpoint = endpoint
        self._calls = endpoint.service.calls
        self._context = context
        self._request = request
        self._dialect = dialect
        self._restrictions = restrictions
        self._trace = trace
        self._run_id = run
        self._attempt: Answered | None = None
        self._stream: ChunkStream | None = None
        self._left = False

    async def answer(self, principal: Principal, sticky: bytes) -> Response | None:
        """Return the response, or stream it and return None. It never raises `ToolbusError`."""
        started = perf_counter()
        watch = DisconnectWatch(self._context.scope, self._leave)
        try:
            body = await self._body(principal, sticky)
            _OK.count += 1
            return await self._finish(body)
        except ToolbusError as error:
            return await self._fail(error)
        except asyncio.CancelledError:  # at the end of a drain
            if self._stream is None or not self._stream.started:
                raise
            return await self._fail(OutcomeUnknownError(_STOPPED))
        finally:
            watch.stop()
            _SECONDS.observe(perf_counter() - started)

    async def _body(self, principal: Principal, sticky: bytes) -> bytes:
        """Return the body of the first target that answers; it is empty after a stream.

        Raises:
            ToolbusError: no target answered; this is the error of the last one.

        """
        configuration = self._endpoint.directory.now.configuration
        targets = routing.targets_of(
            self._request.model, principal, configuration, self._restrictions, sticky
        )
        first = ""

        async def send(target: ModelTarget, number: int) -> bytes:
            nonlocal first
            attempt = self._attempt = self._new_attempt(target, number)
            call = self._call(attempt, configuration, first)
            first = first or call.call_id
            return await self._send(call, attempt)

        return await first_answer(targets, send, self._is_final)

    def _is_final(self) -> bool:
        """Return whether no other target may be tried."""
        return self._left or (self._stream is not None and self._stream.started)

    def _new_attempt(self, target: ModelTarget, number: int) -> Attempt:
        call_id, link = self._calls.new_call_id(), b""
        if self._request.tools:
            link = self._endpoint.suggestions.issue(call_id, self._context.caller.name)
        return Attempt(target, call_id, number, link)

    async def _send(self, call: CallRequested, attempt: Answered) -> bytes:
        if self._left:
            raise CallCancelledError("The client disconnected before the request was sent.")
        if not self._request.stream:
            return (await self._calls.request(call, attempt.receive)).body
        stream = ChunkStream(self._context.send, attempt.headers, self._cancel)
        self._stream = stream

        def put(notification: CallNotification) -> None:
            if type(notification) is Notification and notification.method == CACHE:
                attempt.receive(notification)
                stream.headers = attempt.headers
            else:
                stream.put(notification)

        reply = await self._calls.request(call, put)
        if isinstance(reply, CallResult) and reply.parts:
            stream.check(reply.parts)
        return reply.body

    def _call(self, attempt: Attempt, configuration: Configuration, first: str) -> CallRequested:
        request, target, trace = self._request, attempt.target, self._trace
        alias = request.model if request.model in configuration.models else ""
        call = _call_requested(
            call_id=attempt.call_id,
            reply_to=self._calls.address(attempt.call_id),
            server=target.provider,
            tool=target.model,
            method=request.method,
            key_digest=self._context.caller.key_digest,
            family=ProtocolFamily.MODERN,
            deadline=time() + configuration.providers[target.provider].max_total_timeout,
            traceparent=trace.traceparent,
            tracestate=trace.state,
            parent_id=first,
            extra=ModelCall(
                alias,
                request.stream,
                request.output,
                request.choices,
                attempt.number,
                request.tools,
                beta_of(self._context.headers),
                cache=cache_control_of(self._context.headers),
            ).encode(),
            restriction=self._restrictions,
            run=self._run_id,
            arguments=request.body,
        )
        _describe(call, alias or request.model)
        return call

    # -- the end -------------------------------------------------------------------------------

    async def _finish(self, body: bytes) -> Response | None:
        """Return the whole response, or end the stream and return None."""
        stream, attempt = self._stream, self._attempt
        assert attempt is not None  # noqa: S101
        if stream is None or (body and not stream.started):
            return Response(OK, body, attempt.headers)
        await stream.end(self._cut_event(stream) if stream.is_cut else b"")
        return None

    async def _fail(self, error: ToolbusError) -> Response | None:
        """Return the response for an error, or write it as the last event of the stream."""
        MODEL_REQUESTS.labels(error.code).inc()
        span = current()
        if span.recorded:
            span.fail(error.code)
        stream = self._stream
        if stream is not None and (stream.started or stream.is_cut):
            event = errors.error_event(error, self._request.method, self._dialect)
            await stream.end(self._cut_event(stream) if stream.is_cut else event)
            return None
        resource = self._endpoint.protected_resource
        headers = self._attempt.headers if self._attempt is not None else ()
        return errors.failure(error, self._dialect, self._context.scope, resource, headers)

    def _cut_event(self, stream: ChunkStream) -> bytes:
        error = OutcomeUnknownError(_LOST) if stream.lost else CallCancelledError(_UNREAD)
        return errors.error_event(error, self._request.method, self._dialect)

    def _leave(self) -> None:
        self._left = True
        self._cancel()

    def _cancel(self) -> None:
        if self._attempt is not None:
            cancel = self._endpoint.call_handler.cancel
            self._endpoint.service.spawn(cancel(self._attempt.call_id))


def beta_of(headers: Headers) -> str:
    """Return the header `anthropic-beta`; empty if it is missing or invalid."""
    value = headers.get(b"anthropic-beta", b"")
    return value.decode() if _BETAS.fullmatch(value) else ""


def cache_control_of(headers: Headers) -> str:
    """Return the stricter one of `no-store` and `no-cache` in `Cache-Control`; empty for none."""
    value = headers.get(b"cache-control")
    if value is None:
        return ""
    directives = {each.strip().lower() for each in value.split(b",")}
    return next((name.decode() for name in _DIRECTIVES if name in directives), "")


def _cache_headers(note: CacheNote) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that tell the client how the cache of responses was used."""
    status = (CACHE_STATUS, note.status.encode())
    if not note.key:
        return (status,)
    key = (CACHE_KEY, note.key.encode())
    return (status, key, (AGE, b"%d" % note.age)) if note.status.endswith("hit") else (status, key)


def _describe(call: CallRequested, requested: str) -> None:
    """Add a call's attributes to the span, by OpenTelemetry's conventions for generative AI."""
    span = current()
    if not isinstance(span, Span):
        return
    span.note("gen_ai.operation.name", call.method.partition("/")[2])
    span.note("gen_ai.provider.name", call.server)
    span.note("gen_ai.request.model", requested)
    span.note("toolbus.server", call.server)
    span.note("toolbus.call.id", call.call_id)
