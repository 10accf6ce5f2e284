"""Parser of messages from upstream servers. Members that it does not need stay raw."""

from typing import Any

import msgspec

from toolbus_common.contracts import THROUGH
from toolbus_common.errors import UpstreamInvalidError, UpstreamRefusedError
from toolbus_common.mcp import revisions
from toolbus_executor.mcp_messages.log_levels import LEVELS
from toolbus_executor.mcp_messages.request_builder import META, MODERN
from toolbus_executor.mcp_messages.result_mapping import in_one_line
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.upstreams import gateway_chaining
from toolbus_executor.upstreams.base import Described

LONGEST_MESSAGE = 500
LONGEST_INSTRUCTIONS = 4096
LARGEST_INFO = 32 * 1024  # bytes of a server's info, including its icons
INTERNAL_ERROR = -32603
REVISION_CHANGED = (-32020, -32022)  # error codes of a server whose revision has changed


class Incoming(msgspec.Struct):
    """A message of an upstream. Its `params` and `result` stay raw."""

    id: Any = None
    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None

    @property
    def error_code(self) -> int | None:
        """The code of an error response; None if there is none."""
        code = self.error.get("code") if isinstance(self.error, dict) else None
        return code if isinstance(code, int) else None


class _Progress(msgspec.Struct):
    """The members that every progress notification contains."""

    progressToken: str | int  # noqa: N815 - MCP's member name
    progress: float


class _Logged(msgspec.Struct):
    """The member of a log message that determines which callers receive it."""

    level: str


_incoming = msgspec.json.Decoder(Incoming).decode
_progress = msgspec.json.Decoder(_Progress).decode
_logged = msgspec.json.Decoder(_Logged).decode


def read(text: bytes) -> Incoming:
    """Return a parsed message.

    Raises:
        UpstreamInvalidError: the text is not a JSON-RPC message.

    """
    try:
        if not text.isascii():
            text.decode()  # the decoder does not check raw members
        return _incoming(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise GarbageError(
            "The upstream sent a message that is not JSON-RPC; fix the server."
        ) from error


def result_of(message: Incoming) -> bytes:
    """Return the raw result of a response.

    Raises:
        UpstreamRefusedError: the upstream returned an error. The text is that of the upstream.
        UpstreamInvalidError: the response has no result.

    """
    if message.error is not None:
        raise _refused(message.error if isinstance(message.error, dict) else {})
    result = bytes(message.result)
    if not result.startswith(b"{"):
        raise GarbageError("The upstream responded without a result; fix the server.")
    return result


def _refused(error: dict[str, Any]) -> UpstreamRefusedError:
    code = error.get("code")
    data: dict[str, Any] = {"upstream_code": code if isinstance(code, int) else INTERNAL_ERROR}
    if "data" in error:
        data["upstream_data"] = error["data"]
    text = str(error.get("message", "no message"))[:LONGEST_MESSAGE]
    return UpstreamRefusedError(text, **data)


def progress_of(message: Incoming) -> tuple[Any, bytes] | None:
    """Return the token and the raw params of a progress notification; None if malformed."""
    try:
        progress = _progress(message.params)
    except msgspec.DecodeError:
        return None
    return progress.progressToken, in_one_line(bytes(message.params))


def log_of(message: Incoming) -> tuple[int, bytes] | None:
    """Return the rank and the raw params of a log message; None if malformed."""
    try:
        level = _logged(message.params).level
    except msgspec.DecodeError:
        return None
    return LEVELS.index(level) if level in LEVELS else 0, in_one_line(bytes(message.params))


def described(result: dict[str, Any], family: str, version: str) -> Described:
    """Return the server's description from a result of `server/discover` or `initialize`."""
    capabilities, instructions = result.get("capabilities"), result.get("instructions")
    meta, ttl = result.get("_meta"), result.get("ttlMs")
    meta = meta if isinstance(meta, dict) else {}
    info = _info(result.get("serverInfo") or meta.get(f"{META}serverInfo"))
    return Described(
        family,
        version,
        instructions[:LONGEST_INSTRUCTIONS] if isinstance(instructions, str) else "",
        capabilities if isinstance(capabilities, dict) else {},
        info,
        is_toolbus=info.get("name") == gateway_chaining.NAME or THROUGH in meta,
        ttl_ms=ttl if type(ttl) is int and ttl >= 0 else None,
    )


def _info(info: Any) -> dict[str, Any]:
    """Return a server's info with a name and a version.

    If it is too large, other members are omitted.
    """
    if not isinstance(info, dict) or not isinstance(info.get("name"), str):
        return {}
    known = {"version": "", **info}
    if not isinstance(known["version"], str) or len(msgspec.json.encode(known)) > LARGEST_INFO:
        return {name: str(known[name])[:LONGEST_MESSAGE] for name in ("name", "version")}
    return known


def discovered(message: Incoming) -> Described | None:
    """Return the description in a response to `server/discover`.

    Return None if the server supports no modern revision. Any error response also means this; the
    handshake is tried next.
    """
    if message.error is not None:
        return None
    result = msgspec.json.decode(result_of(message))
    if MODERN not in (result.get("supportedVersions") or ()):
        return None
    return described(result, "modern", MODERN)


def greeted(message: Incoming) -> Described:
    """Return the description in a response to `initialize`.

    Raises:
        UpstreamInvalidError: the protocol revision is not supported.

    """
    result = msgspec.json.decode(result_of(message))
    version = result.get("protocolVersion")
    if version not in revisions.LEGACY:
        raise UpstreamInvalidError(
            "The upstream uses an MCP revision that Toolbus does not support; update the server."
        )
    return described(result, "legacy", version)
