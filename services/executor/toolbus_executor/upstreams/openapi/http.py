"""Serialization of HTTP requests."""

from collections.abc import Iterable

from toolbus_common.errors import UpstreamInvalidError


def bytes_of(
    method: str,
    target: str,
    common: bytes,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
) -> bytes:
    """Return a complete request. `common` contains the header lines of all requests."""
    own = "".join(f"{name}: {_one_line(value)}\r\n" for name, value in headers)
    head = f"{method} {target} HTTP/1.1\r\n".encode("ascii") + common
    head += own.encode("utf-8", "replace")
    if body is None:
        return head + b"\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def _one_line(value: str) -> str:
    if "\r" in value or "\n" in value or "\0" in value:
        raise UpstreamInvalidError("A header's value contains a line break; fix the configuration.")
    return value
