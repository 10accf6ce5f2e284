"""Trace context of requests, and the span of each request in ingress."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolbus_common.contracts import (
    TOOLS_CALL,
    CallRequested,
    CallResult,
    FinalReply,
    ProtocolFamily,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.observability.trace_context import (
    LONGEST_BAGGAGE,
    LONGEST_STATE,
    carried,
    is_traceparent,
    trace_id,
)
from toolbus_common.observability.tracing import Nothing, Span, Tracer, bind, current, enter
from toolbus_common.observability.tracing.call_result import says_it_failed
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.catalog.tool_catalog import LISTS, Catalogue
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.protocol_versions import VERSION, Request

# The names in `_meta`, and the names of HTTP headers.
TRACE, STATE, BAGGAGE = "traceparent", "tracestate", "baggage"
_TRACE, _STATE = TRACE.encode(), STATE.encode()
LONGEST_ID = 64
LOCAL = frozenset(LISTS) | {
    "initialize", "ping", "server/discover", "logging/setLevel", "tasks/list",
    "resources/subscribe", "resources/unsubscribe",
}  # fmt: skip
_NAMED = {
    TOOLS_CALL: ("tools", "gen_ai.tool.name"),
    "prompts/get": ("prompts", "gen_ai.prompt.name"),
}

_tracer = Tracer("ingress")


@dataclass(slots=True)
class TraceContext:
    """The trace context of one request (W3C Trace Context). `parent` is the caller's span.

    The message's `_meta` takes precedence over the HTTP headers. `run` is the trace that the
    message itself names; `carrier` is the traceparent of an HTTP request that belongs to another
    trace than its message. Baggage of an HTTP request is not forwarded: it may name people, and
    servers belong to other parties.
    """

    traceparent: str
    parent: str
    state: str = ""
    baggage: str = ""
    run: str = ""
    carrier: str = ""


def trace_context_of(meta: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> TraceContext:
    """Return the trace context of a request with this `_meta` and these headers."""
    header = headers[_TRACE].decode("latin-1") if _TRACE in headers else ""
    in_meta = meta.get(TRACE, "")
    if not isinstance(in_meta, str):
        in_meta = ""
    trace = TraceContext(*enter(in_meta or header))
    if BAGGAGE in meta:
        trace.baggage = carried(meta[BAGGAGE], LONGEST_BAGGAGE)
    if trace.parent:
        state = meta.get(STATE) if in_meta else headers.get(_STATE, b"").decode("latin-1")
        trace.state = carried(state, LONGEST_STATE)
        if in_meta:
            trace.run = trace_id(trace.traceparent)
            trace.carrier = header if header != in_meta and is_traceparent(header) else ""
    return trace


def request_span(trace: TraceContext, method: str) -> Span | Nothing:
    """Return the span of a request; it records nothing if the trace is not sampled."""
    span = _tracer.entrance(trace.traceparent, trace.parent, method)
    if isinstance(span, Span) and trace.carrier:
        span.links.append(trace.carrier)
    return span


def local_span(context: RequestContext, request: Request) -> Span | Nothing:
    """Return the span of a request that ingress answers itself.

    An unknown method is named `other`, so that callers cannot create new span names.
    """
    trace = trace_context_of(request.meta, context.headers)
    bind(trace.traceparent)
    method = request.method if request.method in LOCAL else "other"
    span = request_span(trace, method)
    if span.recorded:
        span.note("mcp.method.name", method)
        _describe(span, context, request)
    return span


def describe(
    context: RequestContext, request: Request, call: CallRequested, catalogue: Catalogue
) -> None:
    """Add a call's attributes to the current span, and name the span after an existing tool.

    Unknown tools and prompts are not used in the name, so that agents cannot create new span names.
    """
    span = current()
    if not isinstance(span, Span):
        return
    span.note("mcp.method.name", request.method)
    _describe(span, context, request)
    span.note("toolbus.server", call.server)
    span.note("toolbus.call.id", call.call_id)
    kind, attribute = _NAMED.get(request.method, ("", ""))
    if kind and catalogue.offers(kind, call.server, call.tool):
        target = str(request.params["name"])
        span.name = f"{request.method} {target}"
        span.note(attribute, target)
    if request.method == TOOLS_CALL:
        span.note("gen_ai.operation.name", "execute_tool")


def _describe(span: Span | Nothing, context: RequestContext, request: Request) -> None:
    """Add a request's attributes by OpenTelemetry's conventions for MCP.

    A resource's URI and a session's id are not recorded: the URI is an argument, and the id is part
    of a credential.
    """
    session = context.session
    modern = request.family is ProtocolFamily.MODERN
    version = request.meta.get(VERSION) if modern else session.claims.version if session else ""
    span.note("mcp.protocol.version", str(version or ""))
    span.note("jsonrpc.request.id", request.id.decode()[:LONGEST_ID])
    span.note("network.transport", "tcp")
    span.note("network.protocol.name", "http")


def record_failure(error: ToolbusError) -> None:
    """Record a failure by its code, without the message, which may contain arguments."""
    span = current()
    if span.recorded:
        span.fail(error.code)
        span.note("rpc.response.status_code", str(jsonrpc.error_code(error)))


def record_result(reply: FinalReply) -> None:
    """Record whether the tool reported an error."""
    span = current()
    if span.recorded and isinstance(reply, CallResult) and says_it_failed(reply.body):
        span.fail("tool_error")
