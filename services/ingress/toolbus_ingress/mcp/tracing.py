"""Where a request stands in its caller's trace, and the span of its way through the edge."""

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
from toolbus_ingress.auth.request_context import Visit
from toolbus_ingress.catalog.tool_catalog import LISTS, Catalogue
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.protocol_versions import VERSION, Request

TRACE, STATE, BAGGAGE = "traceparent", "tracestate", "baggage"  # of `_meta`, and of HTTP's head
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
class Trail:
    """A request's part of its trace. `above` is its caller's span.

    What the message says of its trace counts; what its HTTP request says does where the message
    says nothing. `run` is the trace the message itself names, `carrier` the traceparent of an HTTP
    request that belongs to another trace than its message. Baggage of an HTTP request is for us: it
    may name people, and servers are others' houses.
    """

    traceparent: str
    above: str
    state: str = ""
    baggage: str = ""
    run: str = ""
    carrier: str = ""


def trail_of(meta: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Trail:
    """The trail of a request with this `_meta` and these headers."""
    told = headers[_TRACE].decode("latin-1") if _TRACE in headers else ""
    said = meta.get(TRACE, "")
    if not isinstance(said, str):
        said = ""
    trail = Trail(*enter(said or told))
    if BAGGAGE in meta:
        trail.baggage = carried(meta[BAGGAGE], LONGEST_BAGGAGE)
    if trail.above:
        state = meta.get(STATE) if said else headers.get(_STATE, b"").decode("latin-1")
        trail.state = carried(state, LONGEST_STATE)
        if said:
            trail.run = trace_id(trail.traceparent)
            trail.carrier = told if told != said and is_traceparent(told) else ""
    return trail


def entrance(trail: Trail, method: str) -> Span | Nothing:
    """The span of a request, where its trace is recorded."""
    span = _tracer.entrance(trail.traceparent, trail.above, method)
    if isinstance(span, Span) and trail.carrier:
        span.links.append(trail.carrier)
    return span


def local(visit: Visit, request: Request) -> Span | Nothing:
    """The span of a request that the edge answers by itself; what is no method does not name it."""
    way = trail_of(request.meta, visit.headers)
    bind(way.traceparent)
    method = request.method if request.method in LOCAL else "other"
    span = entrance(way, method)
    if span.recorded:
        span.note("mcp.method.name", method)
        _describe(span, visit, request)
    return span


def describe(visit: Visit, request: Request, call: CallRequested, catalogue: Catalogue) -> None:
    """Have the span under way note what a relayed request is, and be named by what there is.

    What is not there does not name it: the names of spans must not grow with what agents make up.
    """
    span = current()
    if not isinstance(span, Span):
        return
    span.note("mcp.method.name", request.method)
    _describe(span, visit, request)
    span.note("toolbus.server", call.server)
    span.note("toolbus.call.id", call.call_id)
    kind, attribute = _NAMED.get(request.method, ("", ""))
    if kind and catalogue.offers(kind, call.server, call.tool):
        target = str(request.params["name"])
        span.name = f"{request.method} {target}"
        span.note(attribute, target)
    if request.method == TOOLS_CALL:
        span.note("gen_ai.operation.name", "execute_tool")


def _describe(span: Span | Nothing, visit: Visit, request: Request) -> None:
    """Note what a request is, by OpenTelemetry's conventions for MCP.

    The URI of a resource and the id of a session are not noted: the one is an argument, the other
    half of a key.
    """
    session = visit.session
    modern = request.family is ProtocolFamily.MODERN
    version = request.meta.get(VERSION) if modern else session.claims.version if session else ""
    span.note("mcp.protocol.version", str(version or ""))
    span.note("jsonrpc.request.id", request.id.decode()[:LONGEST_ID])
    span.note("network.transport", "tcp")
    span.note("network.protocol.name", "http")


def failed(error: ToolbusError) -> None:
    """Note how the request failed. The sentence may hold what was sent, so it is left out."""
    span = current()
    if span.recorded:
        span.fail(error.code)
        span.note("rpc.response.status_code", str(jsonrpc.code_of(error)))


def ended(ending: FinalReply) -> None:
    """Note how the request was answered."""
    span = current()
    if span.recorded and isinstance(ending, CallResult) and says_it_failed(ending.body):
        span.fail("tool_error")
