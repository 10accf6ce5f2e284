"""Protocol families: detect the family of a request, and check its rules."""

from typing import Any

from msgspec import Struct

from toolbus_common import strict_json
from toolbus_common.contracts import NOTHING, ProtocolFamily
from toolbus_common.errors import InvalidError
from toolbus_common.mcp.param_headers import NAMED, decoded
from toolbus_common.mcp.revisions import LEGACY, MODERN
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

META = "io.modelcontextprotocol/"
VERSION = META + "protocolVersion"
CAPABILITIES = META + "clientCapabilities"
TASKS = META + "tasks"
LARGEST_CAPABILITIES = 8 * 1024  # bytes


class ProtocolError(Exception):
    """The request breaks a rule of its protocol family; `response` is the prescribed answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Request(Struct, frozen=True):
    """One JSON-RPC request or notification. `id` is raw JSON, empty for a notification.

    `meta` is the `_meta` of the params; empty if they have none.
    """

    id: bytes
    method: str
    params: dict[str, Any]
    family: ProtocolFamily
    meta: dict[str, Any] = {}


def parse_request(message: Any, request_id: bytes, headers: Headers) -> Request:
    """Return the request in a parsed body.

    `request_id` is its id as raw JSON, empty for a notification.

    Raises:
        ProtocolError: the request breaks a rule of its family.

    """
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise _invalid(INVALID_REQUEST, "The body must be one JSON-RPC 2.0 message.")
    method, params = message.get("method"), message.get("params", {})
    if not isinstance(method, str):
        raise _invalid(INVALID_REQUEST, "The request has no 'method'.", request_id)
    if not isinstance(params, dict):
        raise _invalid(INVALID_PARAMS, "params must be an object.", request_id)
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        meta = {}
    if VERSION in meta or _is_modern(method, headers):
        request = Request(request_id, method, params, ProtocolFamily.MODERN, meta)
        _check_modern(request, headers)
    else:
        request = Request(request_id, method, params, ProtocolFamily.LEGACY, meta)
        _check_legacy(request, headers)
    return request


def request_id_of(message: Any) -> bytes:
    """Return the id of a message as raw JSON; empty if it has no id.

    Raises:
        ProtocolError: the id is neither a string nor an integer.

    """
    if not isinstance(message, dict) or "id" not in message:
        return b""
    request_id = message["id"]
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        raise _invalid(INVALID_REQUEST, "The id must be a string or an integer.")
    return strict_json.dump(request_id)


def _is_modern(method: str, headers: Headers) -> bool:
    """Return whether a request without a version in its `_meta` is of the stateless family."""
    version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
    legacy = not version or version in LEGACY or b"mcp-session-id" in headers
    return method != "initialize" and not legacy


def _check_modern(request: Request, headers: Headers) -> None:
    """Check `_meta`, then the headers, then the version, in the order of MCP 2026-07-28."""
    meta = request.meta
    version = meta.get(VERSION)
    if not isinstance(version, str) or not isinstance(meta.get(CAPABILITIES), dict):
        raise _invalid(
            INVALID_PARAMS,
            f"_meta must contain {VERSION} (a string) and {CAPABILITIES} (an object).",
            request.id,
        )
    _check_headers(request, version, headers)
    if version not in MODERN:
        raise _invalid(
            UNSUPPORTED_VERSION,
            f"Protocol version {version} is not supported. Use one of {', '.join(MODERN)}.",
            request.id,
            {"supported": list(MODERN), "requested": version},
        )


def _check_headers(request: Request, version: str, headers: Headers) -> None:
    header = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
    if header != version:
        raise _header_mismatch("MCP-Protocol-Version", header, version, request.id)
    header = headers.get(b"mcp-method", b"").decode("latin-1")
    if header != request.method:
        raise _header_mismatch("Mcp-Method", header, request.method, request.id)
    parameter = NAMED.get(request.method)
    if parameter is not None:
        name, sent = request.params.get(parameter), headers.get(b"mcp-name", b"")
        if not isinstance(name, str) or (sent.decode("latin-1") == name and sent[:2] != b"=?"):
            return
        header = decoded(sent)
        left_out = parameter == "taskId" and b"mcp-name" not in headers  # as FastMCP's tasks do
        if header != name and not left_out:
            raise _header_mismatch("Mcp-Name", header, name, request.id)


def _check_legacy(request: Request, headers: Headers) -> None:
    version = headers.get(b"mcp-protocol-version")
    if version is not None and request.method != "initialize":
        text = version.decode("latin-1")
        if text not in LEGACY:
            raise _invalid(
                INVALID_REQUEST,
                f"MCP-Protocol-Version {text} is not supported. Use one of {', '.join(LEGACY)}.",
                request.id,
            )


def declares_tasks(request: Request) -> bool:
    """Return whether a stateless client declared the tasks extension."""
    declared = request.meta.get(CAPABILITIES, {}).get("extensions")
    return isinstance(declared, dict) and TASKS in declared


def require_tasks(request: Request) -> None:
    """Raise `ProtocolError` if the client did not declare the tasks extension."""
    if not declares_tasks(request):
        raise _invalid(
            MISSING_CAPABILITY,
            f"Declare the extension {TASKS} to use tasks.",
            request.id,
            {"requiredCapabilities": {"extensions": {TASKS: {}}}},
        )


def param_mismatch(header: str, request_id: bytes) -> ProtocolError:
    """Return the error for a header that does not repeat its argument."""
    message = f"The header {header} must repeat the value of its argument."
    return _invalid(HEADER_MISMATCH, message, request_id)


def declared_capabilities(meta: dict[str, Any]) -> str:
    """Return the capabilities that a stateless client declares with a request, as raw JSON.

    Raises:
        InvalidError: they are too large.

    """
    capabilities = meta.get(CAPABILITIES)
    if not capabilities:
        return NOTHING
    raw = strict_json.dump(capabilities)
    if len(raw) > LARGEST_CAPABILITIES:
        raise InvalidError(
            f"The client's capabilities exceed {LARGEST_CAPABILITIES} bytes. Declare fewer."
        )
    return raw.decode()


def duplicate_id(request_id: bytes) -> ProtocolError:
    """Return the error for an id that another request of the session still uses."""
    message = "Another request in flight has this id. Use unique ids within a session."
    return _invalid(INVALID_REQUEST, message, request_id)


def _header_mismatch(header: str, sent: str, expected: str, request_id: bytes) -> ProtocolError:
    message = f"The header {header} ({sent[:128]!r}) must equal the body's {expected[:128]!r}."
    return _invalid(HEADER_MISMATCH, message, request_id)


def _invalid(
    code: int, message: str, request_id: bytes = b"null", data: Any = None
) -> ProtocolError:
    return ProtocolError(
        error(BAD_REQUEST, code, message, request_id=request_id or b"null", data=data)
    )
