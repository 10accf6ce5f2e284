"""JSON-RPC towards upstreams: requests built from raw parts, answers read without losing a byte."""

import re
from base64 import b64encode
from typing import Any

import msgspec

from toolbus_common.asklane import VERSION as RELEASE
from toolbus_common.contracts import CallAdmitted, Era
from toolbus_common.errors import UpstreamFaultError
from toolbus_common.trace import child_of

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
LONGEST_SENTENCE = 500

CLIENT = {"name": "toolbus", "version": RELEASE}
_MODERN_META = msgspec.json.encode(
    {f"{META}protocolVersion": MODERN, f"{META}clientInfo": CLIENT, f"{META}clientCapabilities": {}}
)
_PLAIN = re.compile(r"(?!=\?base64\?)[!-~](?:[ -~]*[!-~])?")
_ONLY_MODERN = ("resultType", "ttlMs", "cacheScope")


class Incoming(msgspec.Struct):
    """Any message of an upstream; what nobody here reads stays raw."""

    id: Any = None
    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


class _Owned(msgspec.Struct):
    """The members of a result the gateway reads."""

    resultType: str | None = None  # noqa: N815 - the wire's own name
    isError: bool | None = None  # noqa: N815


_incoming = msgspec.json.Decoder(Incoming).decode
_owned = msgspec.json.Decoder(_Owned).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def header_value(name: str) -> bytes:
    """A name as the header Mcp-Name carries it (MCP 2026-07-28, value encoding)."""
    if _PLAIN.fullmatch(name):
        return name.encode()
    return b"=?base64?" + b64encode(name.encode()) + b"?="


def call_body(call: CallAdmitted, number: int, *, modern: bool) -> bytes:
    """The body of tools/call. The arguments are strict JSON already and go on as they are."""
    meta = b'{"traceparent":"%b"' % child_of(call.traceparent).encode()
    if call.progress:
        meta += b',"progressToken":%d' % number
    meta += (b"," + _MODERN_META[1:]) if modern else b"}"
    return (
        b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%b,"arguments":%b,'
        b'"_meta":%b}}' % (number, _encode(call.tool), call.arguments, meta)
    )


def request_body(number: int, method: str, params: dict[str, Any], *, modern: bool) -> bytes:
    """The body of any other request."""
    if modern:
        params = params | {"_meta": msgspec.Raw(_MODERN_META)}
    return _encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def notification_body(method: str, params: dict[str, Any] | None = None) -> bytes:
    """The body of a notification."""
    return _encode({"jsonrpc": "2.0", "method": method, "params": params or {}})


def read(text: bytes) -> Incoming:
    """One message. Raises `UpstreamFaultError` for anything that is not JSON-RPC."""
    try:
        return _incoming(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UpstreamFaultError("The upstream answered with something that is no JSON-RPC.") from (
            error
        )


def result_of(message: Incoming) -> bytes:
    """The raw result. Raises `UpstreamFaultError` with the upstream's own sentence for an error."""
    if message.error is not None:
        error = message.error if isinstance(message.error, dict) else {}
        sentence = str(error.get("message", "no message"))[:LONGEST_SENTENCE]
        raise UpstreamFaultError(
            f"The upstream answered with an error: {sentence}", upstream_code=error.get("code")
        )
    result = bytes(message.result)
    if not result.startswith(b"{"):
        raise UpstreamFaultError("The upstream answered without a result.")
    return result


def tool_result(raw: bytes, era: Era) -> tuple[bytes, bool]:
    """A tool's result in the form of the caller's era, and whether the tool reports an error.

    Raises:
        UpstreamFaultError: it is no finished result.

    """
    try:
        owned = _owned(raw)
    except msgspec.DecodeError as error:
        raise UpstreamFaultError("The upstream's result is malformed.") from error
    if owned.resultType not in (None, "complete"):
        raise UpstreamFaultError(
            f"The upstream answered with {owned.resultType!r}, which this version cannot pass on."
        )
    if era is Era.MODERN and owned.resultType is None:
        body = raw[1:].lstrip()
        raw = b'{"resultType":"complete"' + (b"" if body[:1] == b"}" else b",") + body
    elif era is Era.LEGACY and owned.resultType is not None:
        members = _members(raw)
        raw = _encode({k: v for k, v in members.items() if k not in _ONLY_MODERN})
    return raw, bool(owned.isError)
