"""JSON-RPC towards upstreams: requests built from raw parts, answers read without losing a byte."""

import re
from base64 import b64encode
from typing import Any

import msgspec

from toolbus_common.asklane import VERSION as RELEASE
from toolbus_common.contracts import CallAdmitted, Era
from toolbus_common.errors import UpstreamFaultError
from toolbus_common.trace import child_of
from toolbus_executor.upstream import Described

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
HANDSHAKEN = (LEGACY, "2025-06-18", "2025-03-26", "2024-11-05")  # revisions with a handshake
META = "io.modelcontextprotocol/"
LONGEST_SENTENCE = 500
LONGEST_INSTRUCTIONS = 4096

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


class _Progress(msgspec.Struct):
    """The members every progress notification has."""

    progressToken: str | int  # noqa: N815
    progress: float


_incoming = msgspec.json.Decoder(Incoming).decode
_owned = msgspec.json.Decoder(_Owned).decode
_progress = msgspec.json.Decoder(_Progress).decode
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


def listen_body(number: int) -> bytes:
    """The modern era's request to be told of list changes."""
    params = {"notifications": {"toolsListChanged": True}}
    return request_body(number, "subscriptions/listen", params, modern=True)


def notification_body(method: str, params: dict[str, Any] | None = None) -> bytes:
    """The body of a notification."""
    return _encode({"jsonrpc": "2.0", "method": method, "params": params or {}})


def initialize_body(number: int) -> bytes:
    """The handshake's first request."""
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
    return request_body(number, "initialize", params, modern=False)


def head_of(
    prefix: bytes, method: str, name: str, *, modern: bool, version: str, session: bytes
) -> bytes:
    """The header block of a POST, up to its length; `prefix` is what no request changes."""
    head = prefix
    if modern:
        head += b"Mcp-Method: %b\r\n" % method.encode()
        if name:
            head += b"Mcp-Name: %b\r\n" % header_value(name)
    if version:
        head += b"MCP-Protocol-Version: %b\r\n" % version.encode()
    if session:
        head += b"Mcp-Session-Id: %b\r\n" % session
    return head


def with_body(head: bytes, body: bytes) -> bytes:
    """A whole request."""
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def read(text: bytes) -> Incoming:
    """One message. Raises `UpstreamFaultError` for anything that is not JSON-RPC."""
    try:
        if not text.isascii():
            text.decode()  # what stays raw is not checked by the decoder, and must not go further
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

    It has no line breaks, since callers may be told in lines; else its bytes are the upstream's.

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
    return _in_one_line(raw), bool(owned.isError)


def progress_of(message: Incoming) -> tuple[Any, bytes] | None:
    """The token and the raw params of a progress notification; None if they are no progress."""
    try:
        told = _progress(message.params)
    except msgspec.DecodeError:
        return None
    return told.progressToken, _in_one_line(bytes(message.params))


def described(told: dict[str, Any], era: str, version: str) -> Described:
    """What a discover or initialize result says."""
    tools = (told.get("capabilities") or {}).get("tools") or {}
    instructions = told.get("instructions")
    return Described(
        era,
        version,
        instructions[:LONGEST_INSTRUCTIONS] if isinstance(instructions, str) else "",
        bool(tools.get("listChanged")),
    )


def discovered(message: Incoming) -> Described | None:
    """What an answer to server/discover says; None when its server speaks no modern revision.

    An error is no revision either, whatever its code: the handshake then has the last word.
    """
    if message.error is not None:
        return None
    told = msgspec.json.decode(result_of(message))
    if MODERN not in (told.get("supportedVersions") or ()):
        return None
    return described(told, "modern", MODERN)


def greeted(message: Incoming) -> Described:
    """What an answer to initialize says. Raises `UpstreamFaultError` for an unknown revision."""
    told = msgspec.json.decode(result_of(message))
    version = told.get("protocolVersion")
    if version not in HANDSHAKEN:
        raise UpstreamFaultError("The upstream speaks no revision of MCP that Toolbus speaks.")
    return described(told, "legacy", version)


def _in_one_line(raw: bytes) -> bytes:
    return msgspec.json.format(raw, indent=-1) if b"\n" in raw or b"\r" in raw else raw
