"""Exchange of one call with its provider: request, response, usage and charge."""

from math import ceil
from time import monotonic, perf_counter, time
from typing import Any

import msgspec
from msgspec import structs

from toolbus_common.calls.event_fields import call_fields
from toolbus_common.config import Provider
from toolbus_common.config.models.response_cache import MAX_CACHED
from toolbus_common.contracts import CallAdmitted, ModelUsed, Notification
from toolbus_common.contracts.model_calls import (
    CHUNK,
    COUNT_TOKENS,
    MESSAGES,
    MODEL_METHODS,
    REPORT,
    CacheNote,
    ModelCall,
    ModelReport,
    Usage,
    decode_model_call,
)
from toolbus_common.contracts.replies import CallContext
from toolbus_common.errors import (
    CallCancelledError,
    InvalidError,
    ModelRefusedError,
    ToolbusError,
    UpstreamDeadError,
)
from toolbus_common.observability.tracing import CLIENT, NOTHING, Nothing, Span
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.providers.api_keys import COOLING_STATUSES
from toolbus_executor.providers.charging import charge_of_usage, savings_of_cache, token_fields
from toolbus_executor.providers.endpoints.aws_events import AwsEvents
from toolbus_executor.providers.endpoints.methods import (
    CONVERSE,
    is_claude_on_vertex,
    served_methods,
)
from toolbus_executor.providers.http import ERROR, ProviderClient
from toolbus_executor.providers.provider_errors import refusal, stream_failure
from toolbus_executor.providers.request_body import limit_field, raw_prediction, rewritten
from toolbus_executor.providers.streamed_response import StreamedResponse
from toolbus_executor.providers.translation.base import Translation
from toolbus_executor.providers.translation.decoded_facts import text_estimate
from toolbus_executor.providers.translation.sent_errors import error_of
from toolbus_executor.providers.translation.translated_request import translated_request
from toolbus_executor.providers.usage import (
    UNREADABLE,
    Facts,
    Response,
    StreamFacts,
    facts_of,
    usage_or_estimate,
)
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.tracing import (
    TRACER,
    end_span,
    model_request_attributes,
    model_span_name,
    model_usage_attributes,
)
from toolbus_executor.transport.http1 import Head

_ANTHROPIC = frozenset({MESSAGES, COUNT_TOKENS})
HIDDEN_TOKENS_PER_SECOND = 100  # of a model that reasons: more than most generate
_CODED = (b"content-length", b"transfer-encoding")
_NO_USAGE = (None, Usage())


class Exchange:
    """The request of one call, and what is known of its response. It is used once."""

    def __init__(
        self, provider: Provider, name: str, call: CallAdmitted, context: CallContext
    ) -> None:
        self.call = call
        self.context = context
        self.stream: StreamedResponse | None = None
        self.model_call = ModelCall()
        self.cache_note: CacheNote | None = None  # None if the cache is not used
        self.added_charge = 0  # micro-dollars: the embedding of the request
        self._provider = provider
        self._name = name
        self._method = call.method  # of the provider's API
        self._translation: Translation | None = None
        self._body = b""
        self._drops_usage = False
        self._deadline = min(call.deadline, time() + provider.max_total_timeout)
        self._is_described = self._is_copied = False
        self._cached: Response | None = None
        self._cached_charge = self._saved = 0
        self._first_at = 0.0  # `perf_counter` at the replay of a stream
        self._facts: Facts | None = None
        self._usage: Usage | None = None
        self._span: Span | Nothing = NOTHING
        self._traceparent = ""
        self._requested_at = 0.0  # when a request was written, for which the provider may charge

    def describe(self) -> None:
        """Read the description of the request. Raises `InvalidError` if it is invalid."""
        call, self._is_described = self.call, True
        try:
            self.model_call = decode_model_call(call.extra) if call.extra else ModelCall()
        except UNREADABLE as error:
            raise InvalidError(
                "The model request is malformed; check the versions of all services.", sent=False
            ) from error

    def prepare(self) -> None:
        """Build the request.

        Raises:
            InvalidError: the body is invalid, or cannot be sent to this provider.

        """
        call, provider = self.call, self._provider
        if not self._is_described:
            self.describe()
        streamed, body = self.model_call.stream, call.arguments
        served = served_methods(provider, call.tool)
        if call.method not in served:
            limited = bool(call.price)
            self._translation, body = translated_request(call, served, provider, limited=limited)
            self._method = self._translation.provider_method
        if self._method not in MODEL_METHODS:
            self._body = body  # complete: its URL has the model and says whether it streams
            return
        limit = (limit_field(self._method, served), provider.max_output) if call.price else None
        self._body, added = rewritten(body, call.tool, self._method, streamed=streamed, limit=limit)
        self._drops_usage = added and self._translation is None
        if is_claude_on_vertex(provider, call.tool):
            self._body = raw_prediction(self._body, self._method)

    async def run(self, client: ProviderClient) -> bytes:
        """Send the request with one key after another. Return the body of the reply.

        Another key is tried if a response concerns only the key: nothing was processed, and the
        caller has received nothing.

        Raises:
            ToolbusError: the request failed.
            TimeoutError: the provider sent nothing within the time limit.

        """
        self._span = span = TRACER.below(model_span_name(self.call), CLIENT)
        self._traceparent = span.traceparent or self.call.traceparent
        tried: list[str] = []
        model, refused = self.call.tool, None
        while True:
            key = client.keys.choose(model, monotonic(), tried)
            if key is None:
                assert refused is not None  # noqa: S101 - the first attempt always has a key
                raise refused
            try:
                head, raw = await self._send(client, key)
                if head.status < ERROR:
                    return await self._reply(head, raw, client.secrets)
                refused = refusal(self._name, head, raw, client.secrets)
            except ModelRefusedError as error:  # with the status 200
                self.stream, refused = None, error
            status, pause = refused.data["status"], refused.data.get("retry_after", 0.0)
            if status not in COOLING_STATUSES or not key.name:
                raise refused
            tried.append(key.name)
            client.keys.pause(key, model, status, pause, monotonic())

    async def report_bound(self) -> None:
        """Tell the caller the most that the request can cost, if the call asks for reports."""
        if self.model_call.report:
            await self._report(ModelReport(self.call.charge))

    async def report_charge(self, charge: int) -> None:
        """Tell the caller the charge and the tokens, if the call asks for reports."""
        if self.model_call.report:
            usage = self.usage
            await self._report(ModelReport(charge, usage.input, usage.output, is_final=True))

    async def _report(self, report: ModelReport) -> None:
        await self.context.send(Notification(REPORT, report.encode()))

    def end_span(self, used: ModelUsed | None, failure: str = "") -> None:
        """End the span of the request. `failure` is the error's code."""
        span = self._span
        if isinstance(span, Span):
            attributes = model_request_attributes(self.call, self.model_call, self._provider.kind)
            if used is not None:
                first_token = used.first_token_us / 1e6
                attributes |= model_usage_attributes(self.usage, used.finish_reason, first_token)
            end_span(span, attributes, failure)

    @property
    def streamed(self) -> int:
        """The number of received bytes of the stream; 0 for other responses."""
        if self._cached is not None:
            return len(self._cached.body) if self._cached.streamed else 0
        return self.stream.size if self.stream is not None else 0

    @property
    def parts(self) -> int:
        """The number of parts of the stream that were sent to the caller; 0 without a stream."""
        if self._cached is not None:
            return int(self._cached.streamed)
        return self.stream.parts if self.stream is not None and self.stream.began else 0

    @property
    def was_sent(self) -> bool:
        """Whether a request was written, for which the provider may charge."""
        return self._requested_at > 0

    @property
    def usage(self) -> Usage:
        """The usage, reported or estimated."""
        if self._usage is not None:
            return self._usage
        return self.stream.facts.usage if self.stream is not None else Usage()

    @property
    def charge(self) -> int:
        """The charge in micro-dollars: of the usage, or of a cached response."""
        if self._cached is not None:
            return self._cached_charge + self.added_charge
        return charge_of_usage(self.usage, self.call.price) + self.added_charge

    # -- cache ---------------------------------------------------------------------------------

    def begin_copy(self) -> None:
        """Copy the response while it is forwarded."""
        self._is_copied = True

    def copied(self, body: bytes) -> Response | None:
        """Return the complete response. `body` is that of the reply; empty after a stream.

        Return None if the response is incomplete, or too large for the cache.
        """
        stream, facts, is_stream = self.stream, self._facts, False
        if not body and stream is not None:
            facts, copy = stream.facts.facts, stream.copy
            if copy is None or not stream.has_ended:
                return None
            body, is_stream = b"".join(copy), True
        elif facts is None or len(body) > MAX_CACHED:
            return None
        return Response(body, is_stream, self.usage, facts.finish_reason, facts.tools)

    async def replay(self, response: Response, charge: int, saved: int) -> bytes:
        """Use a cached response, and return the body of the reply; empty after a stream."""
        self._cached, self._cached_charge, self._saved = response, charge, saved
        self._usage = Usage()
        self._facts = Facts(None, response.finish_reason, response.tools)
        if not response.streamed:
            return response.body
        self._first_at = perf_counter()
        await self.context.send(Notification(CHUNK, response.body, 1))
        return b""

    def note_cut(self, error: ToolbusError) -> None:
        """Estimate the output of a stream that ended before its first text and without usage.

        Models can reason without sending text, and their providers charge for it. So the output is
        estimated by the elapsed time, up to the request's limit, even after an early cancellation.
        """
        usage = self.usage
        if self.stream is None or usage.output or not usage.estimated:
            return
        if not self.stream.began and not (isinstance(error, CallCancelledError) and self.was_sent):
            return
        bound = self.model_call.output or self._provider.max_output * self.model_call.choices
        hidden = ceil((monotonic() - self._requested_at) * HIDDEN_TOKENS_PER_SECOND)
        self._usage = structs.replace(usage, output=min(hidden, bound))

    @property
    def has_usage(self) -> bool:
        """Whether the provider has answered, completely or in part."""
        return self._usage is not None or (self.stream is not None and self.stream.began)

    def charge_of(self, error: ToolbusError) -> int:
        """Return the charge of a call that failed.

        A rejected request is free, and so is one that was not written, because its caller cancelled
        it before there was a connection. A stream that ended early costs what was used; see
        `note_cut`. Otherwise the outcome is unknown, which costs the reserved amount.
        """
        if isinstance(error, ModelRefusedError) or not self.was_sent:
            return self.added_charge
        return self.charge if self.has_usage else self.call.charge

    def event_fields(self, began: float, *, cut: bool) -> dict[str, Any]:
        """Return the fields of `ModelUsed` except the duration. `began` is of `perf_counter`."""
        call, usage, stream = self.call, self.usage, self.stream
        facts = self._facts or (stream.facts.facts if stream is not None else Facts())
        first_at = stream.first_at if stream is not None else self._first_at
        note, saved = self.cache_note, self._cached.usage if self._cached is not None else Usage()
        return {
            "id": f"{call.call_id}.used",
            **call_fields(call, call.customer, call.key),
            "alias": self.model_call.alias,
            "provider_kind": self._provider.kind,
            "streamed": self.model_call.stream,
            "charge": self.charge - self.added_charge,  # the embedding has its own event
            **token_fields(usage),
            "attempt": self.model_call.attempt,
            "first_token_us": int((first_at - began) * 1e6) if first_at else 0,
            "finish_reason": facts.finish_reason,
            "cut": cut,
            "tools_offered": self.model_call.tools,
            "tools_suggested": facts.tools,
            "cached_savings": savings_of_cache(usage, call.price),
            "cache": note.status if note is not None else "",
            "saved": self._saved,
            "saved_tokens": saved.input + saved.output,
        }

    async def _send(self, client: ProviderClient, key: Any) -> tuple[Head, bytes]:
        """Send the request once."""
        stream = self.stream = self._new_stream(client) if self.model_call.stream else None
        seconds = self._deadline - time()
        if stream is not None:  # only a stream has parts before its end
            seconds = min(self._provider.timeout, seconds)
        untranslated = self._translation is None and self._method in _ANTHROPIC
        beta = self.model_call.beta.encode() if untranslated else b""
        self._requested_at = 0.0
        try:
            path = client.path_of(self._method, self.call.tool, stream is not None)
            return await client.send(
                path, key, self._traceparent, self._body, stream, seconds, beta, self._note_written
            )
        finally:
            if stream is not None:
                stream.release()

    def _note_written(self) -> None:
        self._requested_at = monotonic()

    def _new_stream(self, client: ProviderClient) -> StreamedResponse:
        translation = self._translation.stream() if self._translation is not None else None
        noted = translation.facts if translation is not None else None
        if noted is not None:
            noted.request_bytes = len(self._body)
        facts = noted or StreamFacts(self._method, len(self._body))
        stream = StreamedResponse(self.context, facts, self._provider.timeout, self._deadline)
        stream.secrets = client.secrets
        stream.drops_usage = self._drops_usage
        stream.copy = [] if self._is_copied else None
        stream.translation = translation
        stream.framing = AwsEvents() if self._method == CONVERSE else None
        return stream

    async def _reply(self, head: Head, raw: bytes, secrets: KnownSecrets) -> bytes:
        """Return the body of the reply; empty after a stream."""
        stream = self.stream
        if stream is None or not stream.began:  # the provider can ignore the request for a stream
            return self._read(raw, secrets)
        if not (
            stream.facts.complete
            or stream.facts.facts.finish_reason
            or any(name in head.headers for name in _CODED)
        ):
            raise UpstreamDeadError("The upstream closed the connection during the stream. Retry.")
        await stream.finish()
        return b""

    def _read(self, raw: bytes, secrets: KnownSecrets) -> bytes:
        """Read the usage in a complete response, and return it in the form of the client's API."""
        translation = self._translation
        try:
            if self._method not in MODEL_METHODS and translation is not None:
                return self._read_own_api(raw, translation)
            self._facts = facts_of(self._method, raw)
            if self._facts.usage in _NO_USAGE and (error := error_of(raw)) is not None:
                raise stream_failure(error, secrets, is_partial=False)
            self._usage = usage_or_estimate(self._method, self._facts, len(self._body), raw)
            if translation is None:
                return raw
            return msgspec.json.encode(translation.response(msgspec.json.decode(raw)))
        except UNREADABLE as error:
            raise GarbageError(
                "The upstream's response is not a valid JSON object. Check the provider's 'url'."
            ) from error

    def _read_own_api(self, raw: bytes, translation: Translation) -> bytes:
        """Read the usage while the response is translated, so that it is decoded once."""
        try:
            return msgspec.json.encode(translation.response(msgspec.json.decode(raw)))
        finally:
            if (facts := translation.facts) is not None:
                self._facts = facts
                self._usage = facts.usage or text_estimate(len(self._body), len(raw))
