"""Messages of upstreams, read without losing a byte."""

from typing import Any

import msgspec

from toolbus_common.contracts import THROUGH
from toolbus_common.errors import UpstreamFaultError, UpstreamRefusedError
from toolbus_executor.mcp_messages.log_levels import LEVELS
from toolbus_executor.mcp_messages.request_builder import LEGACY, META, MODERN
from toolbus_executor.mcp_messages.result_mapping import in_one_line
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.upstreams import gateway_chaining
from toolbus_executor.upstreams.base import Described

HANDSHAKEN = (LEGACY, "2025-06-18", "2025-03-26", "2024-11-05")  # revisions with a handshake
LONGEST_SENTENCE = 500
LONGEST_INSTRUCTIONS = 4096
LARGEST_INFO = 32 * 1024  # bytes of what a server calls itself, icons included
INTERNAL_ERROR = -32603
OTHERWISE = (-32020, -32022)  # what a server answers whose revision has changed


class Incoming(msgspec.Struct):
    """Any message of an upstream; what nobody here reads stays raw."""

    id: Any = None
    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None

    @property
    def error_code(self) -> int | None:
        """The code of an answer that is an error."""
        code = self.error.get("code") if isinstance(self.error, dict) else None
        return code if isinstance(code, int) else None


class _Progress(msgspec.Struct):
    """The members every progress notification has."""

    progressToken: str | int  # noqa: N815 - the wire's own name
    progress: float


class _Logged(msgspec.Struct):
    """The member of a log message that decides who hears it."""

    level: str


_incoming = msgspec.json.Decoder(Incoming).decode
_progress = msgspec.json.Decoder(_Progress).decode
_logged = msgspec.json.Decoder(_Logged).decode


def read(text: bytes) -> Incoming:
    """One message. Raises `UpstreamFaultError` for anything that is not JSON-RPC."""
    try:
        if not text.isascii():
            text.decode()  # what stays raw is not checked by the decoder, and must not go further
        return _incoming(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise GarbageError("The upstream answered with something that is no JSON-RPC.") from error


def result_of(message: Incoming) -> bytes:
    """The raw result.

    Raises:
        UpstreamRefusedError: the upstream answered with an error, told in its own words.
        UpstreamFaultError: there is no result.

    """
    if message.error is not None:
        raise _refused(message.error if isinstance(message.error, dict) else {})
    result = bytes(message.result)
    if not result.startswith(b"{"):
        raise GarbageError("The upstream answered without a result.")
    return result


def _refused(error: dict[str, Any]) -> UpstreamRefusedError:
    code = error.get("code")
    data: dict[str, Any] = {"upstream_code": code if isinstance(code, int) else INTERNAL_ERROR}
    if "data" in error:
        data["upstream_data"] = error["data"]
    sentence = str(error.get("message", "no message"))[:LONGEST_SENTENCE]
    return UpstreamRefusedError(sentence, **data)


def progress_of(message: Incoming) -> tuple[Any, bytes] | None:
    """The token and the raw params of a progress notification; None if they are no progress."""
    try:
        told = _progress(message.params)
    except msgspec.DecodeError:
        return None
    return told.progressToken, in_one_line(bytes(message.params))


def log_of(message: Incoming) -> tuple[int, bytes] | None:
    """The rank and the raw params of a log message; None if they are none."""
    try:
        level = _logged(message.params).level
    except msgspec.DecodeError:
        return None
    return LEVELS.index(level) if level in LEVELS else 0, in_one_line(bytes(message.params))


def described(told: dict[str, Any], family: str, version: str) -> Described:
    """What a discover or initialize result says."""
    capabilities, instructions = told.get("capabilities"), told.get("instructions")
    meta, ttl = told.get("_meta"), told.get("ttlMs")
    meta = meta if isinstance(meta, dict) else {}
    info = _info(told.get("serverInfo") or meta.get(f"{META}serverInfo"))
    return Described(
        family,
        version,
        instructions[:LONGEST_INSTRUCTIONS] if isinstance(instructions, str) else "",
        capabilities if isinstance(capabilities, dict) else {},
        info,
        is_toolbus=info.get("name") == gateway_chaining.NAME or THROUGH in meta,
        ttl_ms=ttl if type(ttl) is int and ttl >= 0 else None,
    )


def _info(told: Any) -> dict[str, Any]:
    """A server's name for itself, with what belongs to it: at least a name, and not too large."""
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        return {}
    known = {"version": "", **told}
    if not isinstance(known["version"], str) or len(msgspec.json.encode(known)) > LARGEST_INFO:
        return {name: str(known[name])[:LONGEST_SENTENCE] for name in ("name", "version")}
    return known


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
