"""Builders of requests to upstream servers: params as raw JSON, and headers."""

from functools import lru_cache
from typing import Any

import msgspec

from toolbus_common import VERSION as RELEASE
from toolbus_common.contracts import NOTHING, TOOLS_CALL, CallAdmitted
from toolbus_common.mcp.param_headers import encoded
from toolbus_executor.mcp_messages.client_capabilities import routed, with_tasks

SELECT = "dev.toolbus/select"  # member of a call's `_meta`

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
CLIENT = {"name": "toolbus", "version": RELEASE}

_WITH_ARGUMENTS = frozenset({"tools/call", "prompts/get"})
_LONG = frozenset({"tools/call", "prompts/get", "resources/read"})  # progress extends these calls
_NAMED_BY_TOOL = frozenset({"tools/call", "prompts/get", "resources/read"})
_FAMILY_MEMBERS = {True: ("inputResponses", "requestState"), False: ("task",)}
_OWNED_META = frozenset(
    {"traceparent", "tracestate", "baggage", "progressToken", SELECT}
    | {f"{META}{name}" for name in ("protocolVersion", "clientInfo", "clientCapabilities")}
    | {f"{META}{name}" for name in ("logLevel", "subscriptionId")}
)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class _Named(msgspec.Struct):
    """The member that contains the id of a task."""

    taskId: str = ""  # noqa: N815 - MCP's member name


_named = msgspec.json.Decoder(_Named).decode


@lru_cache(512)
def _modern_meta(capabilities: str) -> bytes:
    """Return the end of `_meta` in every modern request of a client with these capabilities."""
    return b'"%bprotocolVersion":"%b","%bclientInfo":%b,"%bclientCapabilities":%b}' % (
        META.encode(), MODERN.encode(), META.encode(), _encode(CLIENT), META.encode(),
        routed(capabilities),
    )  # fmt: skip


_PLAIN_META = _modern_meta(NOTHING)
_WHOLE_MODERN_META = b"{" + _PLAIN_META


def call_body(call: CallAdmitted, number: int, *, modern: bool) -> bytes:
    """Return the body of a call's request.

    Raw members are copied unchanged, because ingress has verified that they are strict JSON.
    """
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
    """Return the body for a call of any method. `meta` is the beginning of its `_meta`."""
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
    """Return the value of the `Mcp-Name` header; empty if the method has no such header."""
    if call.method in _NAMED_BY_TOOL:
        return call.tool
    if call.method.startswith("tasks/"):
        return _named(call.arguments).taskId
    return ""


def listen_body(number: int, params: dict[str, Any]) -> bytes:
    """Return the body of a subscription request. It can include subscriptions to tasks."""
    meta = msgspec.Raw(b"{" + _modern_meta(with_tasks(NOTHING)))
    request = {"jsonrpc": "2.0", "id": number, "method": "subscriptions/listen"}
    return _encode({**request, "params": {**params, "_meta": meta}})


def request_body(
    number: int, method: str, params: dict[str, Any], *, modern: bool, capabilities: str = NOTHING
) -> bytes:
    """Return the body of a request that Toolbus itself makes."""
    if modern:
        params = params | {"_meta": msgspec.Raw(b"{" + _modern_meta(capabilities))}
    return _encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def notification_body(method: str, params: dict[str, Any] | None = None) -> bytes:
    """Return the body of a notification."""
    return _encode({"jsonrpc": "2.0", "method": method, "params": params or {}})


def initialize_body(number: int, capabilities: dict[str, Any]) -> bytes:
    """Return the body of `initialize`, the first request of the handshake."""
    params = {"protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": CLIENT}
    return request_body(number, "initialize", params, modern=False)


def answer_body(request_id: Any, member: bytes) -> bytes:
    """Return the response to a server's request.

    `member` is the raw member `"result":…` or `"error":…` of the response.
    """
    return b'{"jsonrpc":"2.0","id":%b,%b}' % (_encode(request_id), member)


def refusal(code: int, message: str) -> bytes:
    """Return the `"error"` member of a response, as raw JSON."""
    return b'"error":' + _encode({"code": code, "message": message})


def head_of(
    prefix: bytes, method: str, name: str, *, modern: bool, version: str, session: bytes
) -> bytes:
    """Return the head of a POST request up to Content-Length.

    `prefix` is the part that all requests to the server share.
    """
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
    """Return the trace context of a call as headers. Ingress has verified that it is ASCII."""
    headers = [("traceparent", call.traceparent)]
    if call.tracestate:
        headers.append(("tracestate", call.tracestate))
    if call.baggage:
        headers.append(("baggage", call.baggage))
    return headers


def trace_lines(call: CallAdmitted) -> bytes:
    """Return the trace context of a call as header lines."""
    if not (call.tracestate or call.baggage):
        return b"traceparent: %b\r\n" % call.traceparent.encode()
    return "".join(f"{name}: {value}\r\n" for name, value in trace_headers(call)).encode()


def with_body(head: bytes, body: bytes) -> bytes:
    """Return the complete request: its head, Content-Length and the body."""
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def _inside(params: bytes) -> bytes:
    """Return the members of a raw object, followed by a comma if there are any."""
    inner = params.strip()[1:-1].strip()
    return inner + b"," if inner else b""


def _extra(extra: str, *, modern: bool) -> tuple[bytes, bytes]:
    """Return the extra members to send, and the caller's members of `_meta`.

    Only the members that the server's protocol family supports are sent. The `_meta` members that
    Toolbus sets itself are omitted.
    """
    members = _members(extra)
    supported = b"".join(
        b'"%b":%b,' % (name.encode(), bytes(members[name]))
        for name in _FAMILY_MEMBERS[modern]
        if name in members
    )
    meta = _members(members["_meta"]) if "_meta" in members else {}
    foreign = b"".join(
        b",%b:%b" % (_encode(name), bytes(value))
        for name, value in meta.items()
        if name not in _OWNED_META
    )
    return supported, foreign
