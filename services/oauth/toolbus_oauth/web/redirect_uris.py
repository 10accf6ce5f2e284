"""Validation of redirect URIs in client registrations and in requests."""

import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

LONGEST = 2048
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Schemes that a browser executes, opens as a file or handles itself.
_NEVER = frozenset(
    {"javascript", "data", "vbscript", "file", "blob", "about", "filesystem", "ftp", "ws", "wss",
     "view-source", "mailto", "tel", "intent"}
)  # fmt: skip
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_HOST = re.compile(r"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_WRITTEN = re.compile(r"[!-~]+")  # visible ASCII


def problem(uri: str) -> str:
    """Return the reason why a client may not register this URI; empty if it is allowed."""
    if len(uri) > LONGEST or not _WRITTEN.fullmatch(uri) or "#" in uri or "\\" in uri:
        return "must be a URL of visible ASCII without a fragment"
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a valid URL"
    if parts.scheme not in ("http", "https"):  # a private-use scheme of a native program (RFC 8252)
        allowed = parts.scheme not in _NEVER and _SCHEME.fullmatch(parts.scheme)
        return "" if allowed else "has a scheme that is not allowed"
    if not host or not _HOST.fullmatch(parts.netloc):  # people read the host on the consent page
        return "must contain a host and no user name"
    if parts.scheme == "http" and host not in LOOPBACK:
        return "must use https, or http with a loopback host"
    return ""


def matches(uri: str, registered: Iterable[str]) -> bool:
    """Return whether a URI equals one of the registered URIs, byte for byte.

    Only the port of a loopback URI may differ: the operating system assigns it to a native program
    (RFC 8252 section 7.3).
    """
    return any(uri == each or _same_but_for_port(uri, each) for each in registered)


def _same_but_for_port(uri: str, registered: str) -> bool:
    bare, expected = _without_port(uri), _without_port(registered)
    return bare is not None and bare == expected


def _without_port(uri: str) -> str | None:
    found = re.fullmatch(
        r"(http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::[0-9]{1,5})?((?:[/?].*)?)", uri, re.DOTALL
    )
    return found[1] + found[2] if found is not None else None


def is_local(uri: str) -> bool:
    """Return whether a URI leads to a program on the person's own computer."""
    parts = urlsplit(uri)
    return parts.scheme not in ("http", "https") or (parts.hostname or "") in LOOPBACK


def display_host(uri: str) -> str:
    """Return the host, or the private-use scheme, to show to a person."""
    parts = urlsplit(uri)
    return parts.netloc if parts.scheme in ("http", "https") else f"{parts.scheme}:"


def with_params(uri: str, **params: str) -> str:
    """Return the URI with more query parameters; empty values are omitted."""
    more = "&".join(f"{name}={quote(value, safe='')}" for name, value in params.items() if value)
    return f"{uri}{'&' if '?' in uri else '?'}{more}"
