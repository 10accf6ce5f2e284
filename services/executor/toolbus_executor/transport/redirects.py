"""Redirects within the origin of an upstream. All other redirects are rejected."""

from urllib.parse import urljoin, urlsplit

from toolbus_executor.transport.http1 import Head

MAX_REDIRECTS = 3  # per request
PERMANENT = 308
SAME_METHOD = (307, 308)  # the request is repeated with its method and body
_BY_READING = (301, 302, 303, 307, 308)


def redirect_target(head: Head, method: str, address: str) -> str | None:
    """Return the target to request instead, on the same origin; None if there is none."""
    reading = method in ("GET", "HEAD")
    if head.status not in (_BY_READING if reading else SAME_METHOD):
        return None
    location = head.headers.get(b"location", b"").decode("latin-1")
    try:
        here, there = urlsplit(address), urlsplit(urljoin(address, location))
        same = (there.scheme, there.hostname, there.port) == (here.scheme, here.hostname, here.port)
    except ValueError:  # not a valid URL
        return None
    if not location or not same or "@" in there.netloc:
        return None
    target = f"{there.path or '/'}?{there.query}" if there.query else there.path or "/"
    return target if target.isascii() and target.isprintable() and " " not in target else None
