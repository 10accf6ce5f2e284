"""A request as bytes, and the redirections that are followed."""

from collections.abc import Iterable
from urllib.parse import urljoin, urlsplit

from toolbus_common.errors import UpstreamFaultError
from toolbus_executor.http1 import Head

_SAME_METHOD = (307, 308)  # the request is repeated as it was
_BY_READING = (301, 302, 303, 307, 308)


def bytes_of(
    method: str,
    target: str,
    common: bytes,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
) -> bytes:
    """A whole request; `common` are the header lines every request has."""
    own = "".join(f"{name}: {_one_line(value)}\r\n" for name, value in headers)
    head = f"{method} {target} HTTP/1.1\r\n".encode("ascii") + common
    head += own.encode("utf-8", "replace")
    if body is None:
        return head + b"\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def followed(head: Head, method: str, address: str) -> str | None:
    """The target on the same origin to ask instead; None when there is none to follow."""
    reading = method in ("GET", "HEAD")
    if head.status not in (_BY_READING if reading else _SAME_METHOD):
        return None
    told = head.headers.get(b"location", b"").decode("latin-1")
    here = urlsplit(address)
    there = urlsplit(urljoin(address, told))
    if not told or (there.scheme, there.netloc) != (here.scheme, here.netloc):
        return None
    target = f"{there.path or '/'}?{there.query}" if there.query else there.path or "/"
    return target if target.isascii() and target.isprintable() and " " not in target else None


def _one_line(value: str) -> str:
    if "\r" in value or "\n" in value or "\0" in value:
        raise UpstreamFaultError("A header's value holds a line break; mend the configuration.")
    return value
