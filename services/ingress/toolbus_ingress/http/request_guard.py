"""The HTTP guard: what is refused before a body is read or a credential looked at."""

from dataclasses import dataclass
from typing import Any

from toolbus_common.http_server.body import (
    BodyTooLargeError,
    CutShortError,
    Receive,
    read_body,
)
from toolbus_common.observability.metrics import REFUSED_REQUESTS
from toolbus_ingress.http.jsonrpc import (
    FORBIDDEN,
    HEADER_MISMATCH,
    INVALID_REQUEST,
    Response,
    error,
)

Headers = dict[bytes, bytes]

LARGEST_HEAD = 32 * 1024
MOST_HEADERS = 100
UNKNOWN_SERVER = "unknown_server"
_CHECKED = "toolbus.headers"

# A second copy of one of these would let two readers see two different requests.
_SINGLE = frozenset(
    {
        b"host", b"origin", b"authorization", b"content-type", b"content-length",
        b"content-encoding", b"mcp-protocol-version", b"mcp-method", b"mcp-name",
        b"mcp-session-id", b"last-event-id", b"if-match", b"idempotency-key",
        b"x-toolbus-servers", b"x-toolbus-tools", b"dpop",
    }
)  # fmt: skip


class RefusedRequestError(Exception):
    """The request is answered without being understood."""

    def __init__(self, reason: str, response: Response) -> None:
        super().__init__(reason)
        self.response = response
        REFUSED_REQUESTS.labels(reason).inc()


@dataclass(frozen=True, slots=True)
class Guard:
    """Which hosts and origins are ours. A host without a port covers every port."""

    hosts: frozenset[str]
    origins: frozenset[str]

    def headers(self, scope: dict[str, Any]) -> Headers:
        """Return the request's headers by lower-case name, values stripped of blanks.

        The application checks every request before it is routed; later callers get what it found.

        Raises:
            RefusedRequestError: sizes, doubled headers, or a host or origin that is not ours.

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
            if name in found and (name in _SINGLE or name.startswith(b"mcp-param-")):
                raise _doubled(name)
            found[name] = value.strip()
        if size > LARGEST_HEAD or len(raw) > MOST_HEADERS:
            raise refused("headers", 431, f"The headers exceed {LARGEST_HEAD} bytes; send fewer.")
        self._check_names(found)
        return found

    def _check_names(self, headers: Headers) -> None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not _covered(host, self.hosts):
            raise refused(
                "host", 403, "This Host is not served here; the operator can allow it "
                "with TOOLBUS_ALLOWED_HOSTS.",
            )  # fmt: skip
        origin = headers.get(b"origin")
        if origin is not None and not _covered(origin.decode("latin-1").lower(), self.origins):
            raise refused(
                "origin", 403, "This Origin may not call; the operator can allow it "
                "with TOOLBUS_ALLOWED_ORIGINS.",
            )  # fmt: skip


def check_post(headers: Headers, largest_body: int) -> None:
    """What a POST to the endpoint must say of its body. Raises `RefusedRequestError`."""
    content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if content_type != b"application/json":
        raise refused("content_type", 415, "Send the request as Content-Type: application/json.")
    if b"content-encoding" in headers:
        raise refused("encoding", 415, "Send the body without Content-Encoding.")
    accept = headers.get(b"accept", b"*/*").lower()
    if (
        b"application/json" not in accept
        and b"*/*" not in accept
        and b"application/*" not in accept
    ):
        raise refused("accept", 406, "The answer is application/json: accept it.")
    announced(headers, largest_body)


async def whole_body(receive: Receive, largest: int) -> bytes:
    """Return the whole body. Raises `RefusedRequestError` where it is too large or cut short."""
    try:
        return await read_body(receive, largest)
    except BodyTooLargeError as error:
        raise too_large(largest) from error
    except CutShortError as error:
        raise refused("cut_short", 400, "The request ended before its body was whole.") from error


def announced(headers: Headers, largest: int) -> None:
    """Refuse a body whose announced length is no number or over the limit."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > largest:
        raise too_large(largest)


def too_large(largest: int) -> RefusedRequestError:
    """The refusal of a body over the limit."""
    return refused("size", 413, f"The body exceeds {largest} bytes; send less.")


def refused(reason: str, status: int, sentence: str) -> RefusedRequestError:
    """A refusal with its HTTP status and a JSON-RPC body."""
    answer = error(status, INVALID_REQUEST, sentence)
    rejected = reason if status == FORBIDDEN or reason == UNKNOWN_SERVER else ""
    return RefusedRequestError(reason, Response(status, answer.body, (), rejected))


def _covered(name: str, allowed: frozenset[str]) -> bool:
    """Whether a host or origin is in the list, itself or, with any port, without its port."""
    bare, _, port = name.rpartition(":")
    return name in allowed or (bare in allowed and port.isdigit())


def _doubled(name: bytes) -> RefusedRequestError:
    code = HEADER_MISMATCH if name.startswith(b"mcp-") else INVALID_REQUEST
    sentence = f"The header {name.decode('latin-1')} is there twice; send it once."
    return RefusedRequestError("doubled_header", error(400, code, sentence))
