"""Mapping of an upstream's raw result to the final reply in the caller's protocol family.

Bytes that need no change are copied. A result never contains line breaks, because clients may
receive messages as lines.
"""

import msgspec

from toolbus_common.contracts import (
    TOOLS_CALL,
    CallAdmitted,
    CallResult,
    FinalReply,
    InputRequired,
    ProtocolFamily,
    TaskCreated,
)
from toolbus_common.errors import UpstreamInvalidError
from toolbus_common.mcp.result_versions import as_legacy
from toolbus_executor.mcp_messages import task_formats
from toolbus_executor.repair.results import Owned, read_result

_CACHED = "resources/read"
_PRIVATE = b'"cacheScope":"private",'
_SCOPES = (b'"public"', b'"private"')


class CallOutcome(msgspec.Struct, frozen=True):
    """The outcome of a call: the final reply, and values for logs and metrics.

    `is_error` is true if the tool reported an error. `kept` is the number of bytes that were stored
    instead of returned. `cached` is true if the reply came from the cache. `left_out` is the number
    of bytes that a selection removed. `charge` is the charge in micro-dollars; if it is None, it
    follows from the call's price and the size of the reply.
    """

    reply: FinalReply
    is_error: bool
    kept: int = 0
    cached: bool = False
    left_out: int = 0
    charge: int | None = None


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def final_reply_of(raw: bytes, call: CallAdmitted) -> tuple[FinalReply, bool]:
    """Return the final reply of a call, and whether the tool reported an error.

    Raises:
        UpstreamInvalidError: the caller cannot receive this result.

    """
    raw, owned = read_result(raw, call)
    if owned.resultType == "input_required":
        return InputRequired(in_one_line(raw)), False
    if owned.resultType == "task" and call.method == TOOLS_CALL:
        return TaskCreated(in_one_line(_task(raw, call))), False
    if owned.resultType not in ("", "complete", "task"):
        raise UpstreamInvalidError(
            "The upstream returned a resultType that Toolbus does not support; update Toolbus."
        )
    if not owned.resultType and owned.task and not owned.content and call.method == TOOLS_CALL:
        return TaskCreated(in_one_line(raw)), False
    if call.family is ProtocolFamily.MODERN:
        result = _for_modern(raw, owned, call.method)
    else:
        result = _for_legacy(raw, owned)
    if call.method == TOOLS_CALL and owned.content is msgspec.UNSET:
        result = _with(b'"content":[],', result)  # clients require the member even if it is empty
    return CallResult(in_one_line(result)), owned.isError


def in_one_line(raw: bytes) -> bytes:
    """Return the same JSON without line breaks."""
    return msgspec.json.format(raw, indent=-1) if b"\n" in raw or b"\r" in raw else raw


def _for_modern(raw: bytes, owned: Owned, method: str) -> bytes:
    missing = b""
    if not owned.resultType:
        missing += b'"resultType":"complete",'
    if method == _CACHED:
        bad = _bad_hints(owned)
        if bad:
            raw = _encode({name: value for name, value in _members(raw).items() if name not in bad})
        missing += b"" if owned.ttlMs and "ttlMs" not in bad else b'"ttlMs":0,'
        missing += b"" if owned.cacheScope and "cacheScope" not in bad else _PRIVATE
    return _with(missing, raw) if missing else raw


def _with(missing: bytes, raw: bytes) -> bytes:
    """Return a JSON object with more members at the front.

    Each of these members ends with a comma.
    """
    body = raw[1:].lstrip()
    return b"{" + (missing[:-1] if body[:1] == b"}" else missing) + body


def _bad_hints(owned: Owned) -> set[str]:
    """Return the names of the caching hints that are invalid. Caches must not receive these."""
    ttl, scope = bytes(owned.ttlMs), bytes(owned.cacheScope)
    bad = {"ttlMs"} if ttl and not ttl.isdigit() else set()
    return bad | ({"cacheScope"} if scope and scope not in _SCOPES else set())


def _for_legacy(raw: bytes, owned: Owned) -> bytes:
    odd = bool(owned.structuredContent) and bytes(owned.structuredContent)[:1] != b"{"
    if not (odd or owned.resultType or owned.ttlMs or owned.cacheScope):
        return raw
    return _encode(as_legacy(_members(raw)))


def _task(raw: bytes, call: CallAdmitted) -> bytes:
    if call.family is ProtocolFamily.MODERN:
        return raw
    try:
        return b'{"task":%b}' % task_formats.old(raw)
    except msgspec.DecodeError as error:
        raise UpstreamInvalidError("The upstream's task is malformed; fix the server.") from error
