"""Requests to upstreams, built from raw parts: params of every method, and their headers."""

from functools import lru_cache
from typing import Any

import msgspec

from toolbus_common import VERSION as RELEASE
from toolbus_common.contracts import NOTHING, TOOLS_CALL, CallAdmitted
from toolbus_common.mcp.param_headers import encoded
from toolbus_executor.mcp_messages.client_capabilities import routed, with_tasks

SELECT = "dev.toolbus/select"  # of a call's `_meta`

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
CLIENT = {"name": "toolbus", "version": RELEASE}

_WITH_ARGUMENTS = frozenset({"tools/call", "prompts/get"})
_LONG = frozenset({"tools/call", "prompts/get", "resources/read"})  # progress extends their calls
_NAMED_BY_TOOL = frozenset({"tools/call", "prompts/get", "resources/read"})
_OF_ERA = {True: ("inputResponses", "requestState"), False: ("task",)}
_OWNED_META = frozenset(
    {"traceparent", "tracestate", "baggage", "progressToken", SELECT}
    | {f"{META}{name}" for name in ("protocolVersion", "clientInfo", "clientCapabilities")}
    | {f"{META}{name}" for name in ("logLevel", "subscriptionId")}
)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class _Named(msgspec.Struct):
    """The member that names a task."""

    taskId: str = ""  # noqa: N815 - the wire's own name


_named = msgspec.json.Decoder(_Named).decode


@lru_cache(512)
def _modern_meta(capabilities: str) -> bytes:
    """The end of every modern `_meta`, for one form of capabilities."""
    return b'"%bprotocolVersion":"%b","%bclientInfo":%b,"%bclientCapabilities":%b}' % (
        META.encode(), MODERN.encode(), META.encode(), _encode(CLIENT), META.encode(),
        routed(capabilities),
    )  # fmt: skip


_PLAIN_META = _modern_meta(NOTHING)
_MODERN_META = b"{" + _PLAIN_META


def call_body(call: CallAdmitted, number: int, *, modern: bool) -> bytes:
    """The body of a call. What is raw in it is strict JSON already and goes on as it is."""
    meta = b'{"traceparent":"%b"' % call.traceparent.encode()
    if call.tracestate:
        meta += b',"tracestate":%b' % _encode(call.tracestate)
    if call.baggage:
        meta += b',"baggage":%b' % _encode(call.baggage)
    if call.progress or call.method in _LONG:
        meta += b',"progressToken":%d' % number
    if call.method == TOOLS_CALL and not (call.extra or call.log_level):
        plain = call.capabilities == NOTHING
        if modern:
            meta += b"," + (_PLAIN_META if plain else _modern_meta(call.capabilities))
        else:
            meta += b"}"
        return (
            b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%b,"arguments":%b,'
            b'"_meta":%b}}' % (number, _encode(call.tool), call.arguments, meta)
        )
    return _any_body(call, number, meta, modern=modern)


def _any_body(call: CallAdmitted, number: int, meta: bytes, *, modern: bool) -> bytes:
    """The body of a call of any method, with all that may come along."""
    extra = b""
    if call.extra:
        extra, foreign = _extra(call.extra, modern=modern)
        meta += foreign
    if modern:
        if call.log_level:
            meta += b',"%blogLevel":%b' % (META.encode(), _encode(call.log_level))
        meta += b"," + _modern_meta(call.capabilities)
    else:
        meta += b"}"
    if call.method in _WITH_ARGUMENTS:
        params = b'"name":%b,"arguments":%b,' % (_encode(call.tool), call.arguments)
    else:
        params = _inside(call.arguments)
    return b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":{%b%b"_meta":%b}}' % (
        number, call.method.encode(), params, extra, meta,
    )  # fmt: skip


def name_of(call: CallAdmitted) -> str:
    """What the header Mcp-Name says of a call; empty when its method has none."""
    if call.method in _NAMED_BY_TOOL:
        return call.tool
    if call.method.startswith("tasks/"):
        return _named(call.arguments).taskId
    return ""


def listen_body(number: int, params: dict[str, Any]) -> bytes:
    """The body of a subscription, by which a server may tell of tasks."""
    meta = msgspec.Raw(b"{" + _modern_meta(with_tasks(NOTHING)))
    told = {"jsonrpc": "2.0", "id": number, "method": "subscriptions/listen"}
    return _encode({**told, "params": {**params, "_meta": meta}})


def request_body(
    number: int, method: str, params: dict[str, Any], *, modern: bool, capabilities: str = NOTHING
) -> bytes:
    """The body of a request of our own."""
    if modern:
        params = params | {"_meta": msgspec.Raw(b"{" + _modern_meta(capabilities))}
    return _encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def notification_body(method: str, params: dict[str, Any] | None = None) -> bytes:
    """The body of a notification."""
    return _encode({"jsonrpc": "2.0", "method": method, "params": params or {}})


def initialize_body(number: int, capabilities: dict[str, Any]) -> bytes:
    """The handshake's first request."""
    params = {"protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": CLIENT}
    return request_body(number, "initialize", params, modern=False)


def answer_body(request_id: Any, member: bytes) -> bytes:
    """The answer to a server's question; `member` is its raw `"result":…` or `"error":…`."""
    return b'{"jsonrpc":"2.0","id":%b,%b}' % (_encode(request_id), member)


def refusal(code: int, sentence: str) -> bytes:
    """The member of an answer that refuses."""
    return b'"error":' + _encode({"code": code, "message": sentence})


def head_of(
    prefix: bytes, method: str, name: str, *, modern: bool, version: str, session: bytes
) -> bytes:
    """The header block of a POST, up to its length; `prefix` is what no request changes."""
    head = prefix
    if modern:
        head += b"Mcp-Method: %b\r\n" % method.encode()
        if name:
            head += b"Mcp-Name: %b\r\n" % encoded(name).encode()
    if version:
        head += b"MCP-Protocol-Version: %b\r\n" % version.encode()
    if session:
        head += b"Mcp-Session-Id: %b\r\n" % session
    return head


def trace_headers(call: CallAdmitted) -> list[tuple[str, str]]:
    """The trace of a call as headers; all of it is visible ASCII since it came in."""
    told = [("traceparent", call.traceparent)]
    if call.tracestate:
        told.append(("tracestate", call.tracestate))
    if call.baggage:
        told.append(("baggage", call.baggage))
    return told


def trace_lines(call: CallAdmitted) -> bytes:
    """The same as lines of a request's head."""
    if not (call.tracestate or call.baggage):
        return b"traceparent: %b\r\n" % call.traceparent.encode()
    return "".join(f"{name}: {value}\r\n" for name, value in trace_headers(call)).encode()


def with_body(head: bytes, body: bytes) -> bytes:
    """A whole request."""
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def _inside(params: bytes) -> bytes:
    """The members of a raw object, followed by a comma if there are any."""
    inner = params.strip()[1:-1].strip()
    return inner + b"," if inner else b""


def _extra(extra: str, *, modern: bool) -> tuple[bytes, bytes]:
    """Return the members besides arguments that the server's family has, and foreign _meta ones."""
    told = _members(extra)
    beside = b"".join(
        b'"%b":%b,' % (name.encode(), bytes(told[name])) for name in _OF_ERA[modern] if name in told
    )
    meta = _members(told["_meta"]) if "_meta" in told else {}
    foreign = b"".join(
        b",%b:%b" % (_encode(name), bytes(value))
        for name, value in meta.items()
        if name not in _OWNED_META
    )
    return beside, foreign
