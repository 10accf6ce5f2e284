"""Which protocol family a request belongs to, and whether it keeps that family's rules."""

from typing import Any

from msgspec import Struct

from toolbus_common import strict_json
from toolbus_common.contracts import ProtocolFamily
from toolbus_common.mcp.param_headers import NAMED, decoded
from toolbus_ingress.http.jsonrpc import (
    BAD_REQUEST,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
    Response,
    error,
)
from toolbus_ingress.http.request_guard import Headers

MODERN = ("2026-07-28",)
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")

META = "io.modelcontextprotocol/"
VERSION = META + "protocolVersion"
CAPABILITIES = META + "clientCapabilities"
TASKS = META + "tasks"


class RuleBrokenError(Exception):
    """The request breaks a rule of its family."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Request(Struct, frozen=True):
    """One JSON-RPC request or notification. `id` is raw JSON, empty for a notification."""

    id: bytes
    method: str
    params: dict[str, Any]
    family: ProtocolFamily

    @property
    def meta(self) -> dict[str, Any]:
        """The request's `_meta`."""
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}


def read(message: Any, request_id: bytes, headers: Headers) -> Request:
    """The request in a parsed body; `request_id` is its id as raw JSON, empty for a notification.

    Raises:
        RuleBrokenError: with the answer the family prescribes.

    """
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise _broken(INVALID_REQUEST, "Send one JSON-RPC 2.0 message, without others around it.")
    method, params = message.get("method"), message.get("params", {})
    if not isinstance(method, str):
        raise _broken(INVALID_REQUEST, "The request names no method.", request_id)
    if not isinstance(params, dict):
        raise _broken(INVALID_PARAMS, "params must be an object.", request_id)
    request = Request(request_id, method, params, _family(method, params, headers))
    if request.family is ProtocolFamily.MODERN:
        _check_modern(request, headers)
    else:
        _check_legacy(request, headers)
    return request


def id_of(message: Any) -> bytes:
    """The id as raw JSON; empty when there is none. Raises `RuleBrokenError` for other kinds."""
    if not isinstance(message, dict) or "id" not in message:
        return b""
    request_id = message["id"]
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        raise _broken(INVALID_REQUEST, "The id must be a string or an integer.")
    return strict_json.dump(request_id)


def _family(method: str, params: dict[str, Any], headers: Headers) -> ProtocolFamily:
    meta = params.get("_meta")
    if isinstance(meta, dict) and VERSION in meta:
        return ProtocolFamily.MODERN
    if method == "initialize":
        return ProtocolFamily.LEGACY
    version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
    legacy = not version or version in LEGACY or b"mcp-session-id" in headers
    return ProtocolFamily.LEGACY if legacy else ProtocolFamily.MODERN


def _check_modern(request: Request, headers: Headers) -> None:
    """The ladder of MCP 2026-07-28: `_meta`, then headers, then the version."""
    meta = request.meta
    version = meta.get(VERSION)
    if not isinstance(version, str) or not isinstance(meta.get(CAPABILITIES), dict):
        raise _broken(
            INVALID_PARAMS,
            f"_meta must hold {VERSION} (a string) and {CAPABILITIES} (an object).",
            request.id,
        )
    _check_headers(request, version, headers)
    if version not in MODERN:
        raise _broken(
            UNSUPPORTED_VERSION,
            f"Protocol version {version} is not served.",
            request.id,
            {"supported": list(MODERN), "requested": version},
        )


def _check_headers(request: Request, version: str, headers: Headers) -> None:
    told = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
    if told != version:
        raise _mismatch("MCP-Protocol-Version", told, version, request.id)
    told = headers.get(b"mcp-method", b"").decode("latin-1")
    if told != request.method:
        raise _mismatch("Mcp-Method", told, request.method, request.id)
    parameter = NAMED.get(request.method)
    if parameter is not None:
        name = request.params.get(parameter)
        told = decoded(headers.get(b"mcp-name", b""))
        left_out = parameter == "taskId" and b"mcp-name" not in headers  # as FastMCP's tasks do
        if isinstance(name, str) and told != name and not left_out:
            raise _mismatch("Mcp-Name", told, name, request.id)


def _check_legacy(request: Request, headers: Headers) -> None:
    version = headers.get(b"mcp-protocol-version")
    if version is not None and request.method != "initialize":
        told = version.decode("latin-1")
        if told not in LEGACY:
            raise _broken(
                INVALID_REQUEST,
                f"MCP-Protocol-Version {told} is not served; use one of {', '.join(LEGACY)}.",
                request.id,
            )


def takes_tasks(request: Request) -> bool:
    """Whether a stateless client declared the extension."""
    declared = request.meta.get(CAPABILITIES, {}).get("extensions")
    return isinstance(declared, dict) and TASKS in declared


def require_tasks(request: Request) -> None:
    """Refuse a task's method to who did not declare the extension. Raises `RuleBrokenError`."""
    if not takes_tasks(request):
        raise _broken(
            MISSING_CAPABILITY,
            f"Declare the extension {TASKS} to use tasks.",
            request.id,
            {"requiredCapabilities": {"extensions": {TASKS: {}}}},
        )


def mismatched(header: str, request_id: bytes) -> RuleBrokenError:
    """The refusal of a header that does not repeat the argument it stands for."""
    sentence = f"The header {header} must repeat the argument it stands for."
    return _broken(HEADER_MISMATCH, sentence, request_id)


def repeated(request_id: bytes) -> RuleBrokenError:
    """The refusal of an id that another request of the session still uses."""
    sentence = "A request with this id is under way in this session; give each its own."
    return _broken(INVALID_REQUEST, sentence, request_id)


def _mismatch(header: str, told: str, meant: str, request_id: bytes) -> RuleBrokenError:
    sentence = f"The header {header} ({told[:128]!r}) must repeat the body's {meant[:128]!r}."
    return _broken(HEADER_MISMATCH, sentence, request_id)


def _broken(
    code: int, sentence: str, request_id: bytes = b"null", data: Any = None
) -> RuleBrokenError:
    return RuleBrokenError(
        error(BAD_REQUEST, code, sentence, request_id=request_id or b"null", data=data)
    )
