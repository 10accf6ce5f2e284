"""Where a browser may be sent: the addresses a client may name, and which of them it did. Pure."""

import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

LONGEST = 2048
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What a browser would run, open as a file, or speak by itself.
_NEVER = frozenset(
    {"javascript", "data", "vbscript", "file", "blob", "about", "filesystem", "ftp", "ws", "wss",
     "view-source", "mailto", "tel", "intent"}
)  # fmt: skip
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_HOST = re.compile(r"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_WRITTEN = re.compile(r"[!-~]+")  # visible ASCII


def fault(uri: str) -> str:
    """Why a client may not name this address; empty when it may."""
    if len(uri) > LONGEST or not _WRITTEN.fullmatch(uri) or "#" in uri or "\\" in uri:
        return "must be a URL of visible ASCII without a fragment"
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "cannot be read"
    if parts.scheme not in ("http", "https"):  # a program's own, on the person's machine
        fine = parts.scheme not in _NEVER and _SCHEME.fullmatch(parts.scheme)
        return "" if fine else "has a scheme nobody may be sent to"
    if not host or not _HOST.fullmatch(parts.netloc):  # people judge it by how it looks
        return "must name a host, and no user"
    if parts.scheme == "http" and host not in LOOPBACK:
        return "must be https, or http on the person's own machine"
    return ""


def matches(uri: str, registered: Iterable[str]) -> bool:
    """Whether this is one of the registered addresses, byte for byte.

    Only the port of a loopback address may differ, which a program on the person's machine is
    given by its system (RFC 8252 section 7.3).
    """
    return any(uri == each or _same_but_for_port(uri, each) for each in registered)


def _same_but_for_port(uri: str, registered: str) -> bool:
    bare, own = _without_port(uri), _without_port(registered)
    return bare is not None and bare == own


def _without_port(uri: str) -> str | None:
    found = re.fullmatch(
        r"(http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::[0-9]{1,5})?((?:[/?].*)?)", uri, re.DOTALL
    )
    return found[1] + found[2] if found is not None else None


def is_local(uri: str) -> bool:
    """Whether it leads to a program on the person's own machine."""
    parts = urlsplit(uri)
    return parts.scheme not in ("http", "https") or (parts.hostname or "") in LOOPBACK


def shown_host(uri: str) -> str:
    """Where it leads, as a person is told."""
    parts = urlsplit(uri)
    return parts.netloc if parts.scheme in ("http", "https") else f"{parts.scheme}:"


def extended(uri: str, **told: str) -> str:
    """The address with more parameters."""
    more = "&".join(f"{name}={quote(value, safe='')}" for name, value in told.items() if value)
    return f"{uri}{'&' if '?' in uri else '?'}{more}"
