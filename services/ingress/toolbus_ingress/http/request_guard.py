"""The request guard: checks before a body is read or a credential is looked up."""

from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toolbus_common.http_server.body import (
    BodyTooLargeError,
    CutShortError,
    Receive,
    read_body,
)
from toolbus_common.mcp.param_headers import RAW_PREFIX
from toolbus_common.observability.metrics import REJECTED_REQUESTS
from toolbus_ingress.http.jsonrpc import (
    FORBIDDEN,
    HEADER_MISMATCH,
    INVALID_REQUEST,
    Response,
    error,
)

Headers = dict[bytes, bytes]

LARGEST_HEAD = 32 * 1024
MAX_HEADERS = 100
UNKNOWN_SERVER = "unknown_server"
_CHECKED = "toolbus.headers"

# If one of these headers is repeated, two components could interpret the request differently.
_SINGLE = frozenset(
    {
        b"host", b"origin", b"authorization", b"content-type", b"content-length",
        b"content-encoding", b"mcp-protocol-version", b"mcp-method", b"mcp-name",
        b"mcp-session-id", b"last-event-id", b"if-match", b"idempotency-key",
        b"x-toolbus-servers", b"x-toolbus-tools", b"x-toolbus-models", b"dpop", b"x-api-key",
        b"x-toolbus-agent", b"x-toolbus-run",
        b"x-toolbus-inject", b"x-toolbus-suggestion",
    }
)  # fmt: skip


class RejectedRequestError(Exception):
    """The request is rejected; `response` is the complete response."""

    def __init__(self, reason: str, response: Response) -> None:
        super().__init__(reason)
        self.response = response
        REJECTED_REQUESTS.labels(reason).inc()


@dataclass(frozen=True, slots=True)
class RequestGuard:
    """Checker of headers, hosts and origins. An entry without a port covers every port."""

    hosts: frozenset[str]
    origins: frozenset[str]

    def headers(self, scope: MutableMapping[str, Any]) -> Headers:
        """Return the request's headers by lower-case name, without surrounding blanks.

        The application checks every request before it is routed; later calls return the same
        dictionary.

        Raises:
            RejectedRequestError: the headers are too large or repeated, or the host or origin
                is not allowed.

        """
        found: Headers | None = scope.get(_CHECKED)
        if found is None:
            found = scope[_CHECKED] = self._checked(scope["headers"])
        return found

    def _checked(self, raw: list[tuple[bytes, bytes]]) -> Headers:
        found: Headers = {}
        size = 0
        for name, value in raw:
            size += len(name) + len(value)
            if name in found and (name in _SINGLE or name.startswith(RAW_PREFIX)):
                raise _repeated_header(name)
            found[name] = value.strip()
        if size > LARGEST_HEAD or len(raw) > MAX_HEADERS:
            raise rejected("headers", 431, f"The headers exceed {LARGEST_HEAD} bytes. Send fewer.")
        if not _is_allowed(found.get(b"host", b""), self.hosts):
            raise rejected(
                "host", 403, "The Host header is not allowed. The operator can allow it "
                "with TOOLBUS_ALLOWED_HOSTS.",
            )  # fmt: skip
        origin = found.get(b"origin")
        if origin is not None and not _is_allowed(origin, self.origins):
            raise rejected(
                "origin", 403, "The Origin header is not allowed. The operator can allow it "
                "with TOOLBUS_ALLOWED_ORIGINS.",
            )  # fmt: skip
        return found


def check_post(headers: Headers, largest_body: int, *, events: bool = False) -> None:
    """Check the headers of a POST with a JSON body. Raises `RejectedRequestError`.

    With `events`, an Accept header that lists only event streams is valid too.
    """
    content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if content_type != b"application/json":
        raise rejected(
            "content_type", 415, "Unsupported content type. Send Content-Type: application/json."
        )
    if b"content-encoding" in headers:
        raise rejected(
            "encoding", 415, "Content-Encoding is not supported. Send the body without it."
        )
    accept = headers.get(b"accept", b"*/*").lower()
    if (
        b"application/json" not in accept
        and b"*/*" not in accept
        and b"application/*" not in accept
        and not (events and b"text/event-stream" in accept)
    ):
        raise rejected(
            "accept", 406, "The response is application/json. Add it to the Accept header."
        )
    check_content_length(headers, largest_body)


async def read_request_body(receive: Receive, largest: int) -> bytes:
    """Read the whole body. Raises `RejectedRequestError` if it is too large or incomplete."""
    try:
        return await read_body(receive, largest)
    except BodyTooLargeError as error:
        raise too_large(largest) from error
    except CutShortError as error:
        raise rejected(
            "cut_short", 400, "The request ended before its body was complete. Send it again."
        ) from error


def check_content_length(headers: Headers, largest: int) -> None:
    """Raise `RejectedRequestError` for a Content-Length that is invalid or over the limit."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > largest:
        raise too_large(largest)


def too_large(largest: int) -> RejectedRequestError:
    """Return the rejection of a body over the limit."""
    return rejected("size", 413, f"The body exceeds {largest} bytes. Send less.")


def rejected(reason: str, status: int, message: str) -> RejectedRequestError:
    """Return a rejection with its HTTP status and a JSON-RPC body."""
    answer = error(status, INVALID_REQUEST, message)
    rejected_as = reason if status == FORBIDDEN or reason == UNKNOWN_SERVER else ""
    return RejectedRequestError(reason, Response(status, answer.body, (), rejected_as))


@lru_cache(maxsize=256)
def _is_allowed(raw: bytes, allowed: frozenset[str]) -> bool:
    """Return whether a host or origin is listed, with or without its port."""
    name = raw.decode("latin-1").lower()
    bare, _, port = name.rpartition(":")
    return name in allowed or (bare in allowed and port.isdigit())


def _repeated_header(name: bytes) -> RejectedRequestError:
    code = HEADER_MISMATCH if name.startswith(b"mcp-") else INVALID_REQUEST
    message = f"The header {name.decode('latin-1')} is repeated. Send it once."
    return RejectedRequestError("doubled_header", error(400, code, message))
