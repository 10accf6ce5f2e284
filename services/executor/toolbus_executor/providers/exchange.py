"""Exchange of one call with its provider: request, response, usage and charge."""

from math import ceil
from time import monotonic, time
from typing import Any

import msgspec
from msgspec import structs

from toolbus_common.calls.event_fields import call_fields
from toolbus_common.config import Provider
from toolbus_common.contracts import CallAdmitted, ModelUsed, Notification
from toolbus_common.contracts.model_calls import (
    COUNT_TOKENS,
    MESSAGES,
    REPORT,
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
from toolbus_executor.providers.api_keys import COOLING_STATUSES
from toolbus_executor.providers.charging import charge_of_usage, savings_of_cache
from toolbus_executor.providers.http import ERROR, ProviderClient
from toolbus_executor.providers.provider_errors import refusal, retry_after
from toolbus_executor.providers.request_body import limit_field, rewritten
from toolbus_executor.providers.streamed_response import StreamedResponse
from toolbus_executor.providers.translation.base import Translation
from toolbus_executor.providers.usage import (
    UNREADABLE,
    Facts,
    StreamFacts,
    facts_of,
    usage_or_estimate,
)
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.tracing import (
    TRACER,
    model_request_attributes,
    model_span_name,
    model_usage_attributes,
)
from toolbus_executor.transport.http1 import Head

_METHOD = "models/"
_ANTHROPIC = frozenset({MESSAGES, COUNT_TOKENS})
HIDDEN_TOKENS_PER_SECOND = 100  # of a model that reasons: more than most generate
_CODED = (b"content-length", b"transfer-encoding")


class Exchange:
    """The request of one call, and what is known of its response. It is used once."""

    def __init__(
        self, provider: Provider, name: str, call: CallAdmitted, context: CallContext
    ) -> None:
        self.call = call
        self.stream: StreamedResponse | None = None
        self.model_call = ModelCall()
        self._provider = provider
        self._name = name
        self._context = context
        self._method = call.method  # of the provider's API
        self._translation: Translation | None = None
        self._body = b""
        self._drops_usage = False
        self._deadline = min(call.deadline, time() + provider.max_total_timeout)
        self._facts: Facts | None = None
        self._usage: Usage | None = None
        self._span: Span | Nothing = NOTHING
        self._traceparent = ""
        self._requested_at = 0.0  # when a request was written, for which the provider may charge

    def prepare(self) -> None:
        """Build the request.

        Raises:
            InvalidError: the body is invalid, or cannot be sent to this provider.

        """
        call, provider = self.call, self._provider
        try:
            self.model_call = decode_model_call(call.extra) if call.extra else ModelCall()
        except UNREADABLE as error:
            raise InvalidError(
                "The call has no valid description of a model request.", sent=False
            ) from error
        streamed, body = self.model_call.stream, call.arguments
        served = _served_methods(provider)
        if call.method not in served:
            self._translation, body = _translated_request(call, served, provider.max_output)
            self._method = self._translation.provider_method
        limit = (limit_field(self._method, served), provider.max_output) if call.price else None
        self._body, added = rewritten(body, call.tool, self._method, streamed=streamed, limit=limit)
        self._drops_usage = added and self._translation is None

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
            head, raw = await self._send(client, key)
            if head.status < ERROR:
                return await self._reply(head, raw)
            refused = refusal(self._name, head, raw, client.secrets)
            if head.status not in COOLING_STATUSES or not key.name:
                raise refused
            tried.append(key.name)
            client.keys.pause(key, model, head.status, retry_after(head), monotonic())

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
        await self._context.send(Notification(REPORT, report.encode()))

    def end_span(self, used: ModelUsed | None, failure: str = "") -> None:
        """End the span of the request. `failure` is the error's code."""
        span = self._span
        if not isinstance(span, Span):
            return
        attributes = model_request_attributes(self.call, self.model_call, self._provider.kind)
        if used is not None:
            attributes |= model_usage_attributes(
                self.usage, used.finish_reason, used.first_token_us / 1e6
            )
        for name, value in attributes.items():
            span.note(name, value)
        if failure:
            span.fail(failure)
        span.end()

    @property
    def streamed(self) -> int:
        """The number of received bytes of the stream; 0 for other responses."""
        return self.stream.size if self.stream is not None else 0

    @property
    def parts(self) -> int:
        """The number of parts of the stream that were sent to the caller; 0 without a stream."""
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
        """The charge of the usage in micro-dollars."""
        return charge_of_usage(self.usage, self.call.price)

    def note_cut(self) -> None:
        """Estimate the output of a stream that ended before its first text and without usage.

        Models can reason without sending text, and their providers charge for it. So the output is
        estimated by the time, up to the limit of the request.
        """
        usage = self.usage
        began = self.stream is not None and self.stream.began
        if not began or usage.output or not usage.estimated:
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
        it before there was a connection. A stream that ended early costs what was used; if its
        caller cancelled it before the first event, this is its input. Otherwise the outcome is
        unknown, which costs the reserved amount.
        """
        if isinstance(error, ModelRefusedError) or not self.was_sent:
            return 0
        cancelled = isinstance(error, CallCancelledError) and self.stream is not None
        return self.charge if self.has_usage or cancelled else self.call.charge

    def event_fields(self, began: float, *, cut: bool) -> dict[str, Any]:
        """Return the fields of `ModelUsed` but the duration. `began` is of `perf_counter`."""
        call, usage, stream = self.call, self.usage, self.stream
        facts = self._facts or (stream.facts.facts if stream is not None else Facts())
        first_at = stream.first_at if stream is not None else 0.0
        return {
            "id": f"{call.call_id}.used",
            **call_fields(call, call.customer, call.key),
            "alias": self.model_call.alias,
            "provider_kind": self._provider.kind,
            "streamed": self.model_call.stream,
            "charge": self.charge,
            "input_tokens": usage.input,
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            "output_tokens": usage.output,
            "reasoning_tokens": usage.reasoning,
            "estimated": usage.estimated,
            "attempt": self.model_call.attempt,
            "first_token_us": int((first_at - began) * 1e6) if first_at else 0,
            "finish_reason": facts.finish_reason,
            "cut": cut,
            "tools_offered": self.model_call.tools,
            "tools_suggested": facts.tools,
            "cached_savings": savings_of_cache(usage, call.price),
        }

    async def _send(self, client: ProviderClient, key: Any) -> tuple[Head, bytes]:
        """Send the request once."""
        stream = self.stream = self._new_stream() if self.model_call.stream else None
        seconds = self._deadline - time()
        if stream is not None:  # another response has no parts before its end
            seconds = min(self._provider.timeout, seconds)
        untranslated = self._translation is None and self._method in _ANTHROPIC
        beta = self.model_call.beta.encode() if untranslated else b""
        self._requested_at = 0.0
        try:
            return await client.send(
                self._method,
                key,
                self._traceparent,
                self._body,
                stream,
                seconds,
                beta,
                self._note_written,
            )
        finally:
            if stream is not None:
                stream.release()

    def _note_written(self) -> None:
        self._requested_at = monotonic()

    def _new_stream(self) -> StreamedResponse:
        facts = StreamFacts(self._method, len(self._body))
        stream = StreamedResponse(self._context, facts, self._provider.timeout, self._deadline)
        stream.drops_usage = self._drops_usage
        stream.translation = self._translation.stream() if self._translation is not None else None
        return stream

    async def _reply(self, head: Head, raw: bytes) -> bytes:
        """Return the body of the reply; empty after a stream."""
        stream = self.stream
        if stream is None or not stream.began:  # the provider can ignore the request for a stream
            return self._read(raw)
        if not (
            stream.facts.complete
            or stream.facts.facts.finish_reason
            or any(name in head.headers for name in _CODED)
        ):
            raise UpstreamDeadError("The upstream closed the connection within the stream.")
        await stream.finish()
        return b""

    def _read(self, raw: bytes) -> bytes:
        """Read the usage in a complete response, and return it in the form of the client's API."""
        try:
            self._facts = facts_of(self._method, raw)
            self._usage = usage_or_estimate(self._method, self._facts, len(self._body), raw)
            if self._translation is None:
                return raw
            return msgspec.json.encode(self._translation.response(msgspec.json.decode(raw)))
        except UNREADABLE as error:
            raise GarbageError("The upstream's response is not a valid JSON object.") from error


def _served_methods(provider: Provider) -> frozenset[str]:
    """Return the methods that a provider serves without translation."""
    served = {f"{_METHOD}{api}" for api in provider.served_apis}
    return frozenset(served | {COUNT_TOKENS} if MESSAGES in served else served)


def _translated_request(
    call: CallAdmitted, served: frozenset[str], max_output: int
) -> tuple[Translation, bytes]:
    """Return the translation for a provider that does not serve the client's API, and the body.

    Raises:
        InvalidError: the request cannot be translated. Nothing was sent.

    """
    # Most providers serve the API of their clients, and the import takes 40 ms.
    from toolbus_executor.providers.translation.select import translation_for  # noqa: PLC0415

    try:
        translation = translation_for(call.method, served, max_output)
        assert translation is not None  # noqa: S101 - the provider does not serve the method
        # The provider's name of the model decides the form of some members.
        body = msgspec.json.decode(call.arguments, type=dict) | {"model": call.tool}
        return translation, msgspec.json.encode(translation.request(body))
    except InvalidError as error:
        error.data["sent"] = False
        raise
    except UNREADABLE as error:
        raise InvalidError(
            f"The body is not a valid JSON object ({error}); correct it.", sent=False
        ) from error
