"""Requests to a forward proxy: the target, and the head of the forwarded request (no I/O)."""

import re
from dataclasses import dataclass

from toolbus_common.egress.url_target import EgressError, Target, target_of

_CONNECT = re.compile(r"CONNECT ([^\s/?#@\\]+:[0-9]{1,5}) HTTP/1\.[01]")
_PLAIN = re.compile(r"((?!CONNECT )[A-Z]{1,32}) (http://[^\s/?#@\\]+)([/?][!-~]*)? HTTP/1\.[01]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t -~\x80-\xff]*")
# Headers that apply only to this connection, or that the proxy sets itself.
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "host", "upgrade"})


class NoRequestError(Exception):
    """The bytes are not a proxy request."""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """The target of a proxy request, its URL, and the head to forward. A tunnel has no head."""

    target: Target
    url: str
    method: str = ""
    path: str = ""
    headers: tuple[str, ...] = ()

    @property
    def is_tunnel(self) -> bool:
        """Whether the proxy forwards bytes unchanged in both directions."""
        return not self.method

    def onward(self, before: bytes = b"", more: bytes = b"") -> bytes:
        """Return the head to forward, with the checked host, for one request only."""
        host = self.url.removeprefix("http://")
        lines = "".join(f"{each}\r\n" for each in self.headers)
        own_headers = f"Host: {host}\r\n{lines}Connection: close\r\n".encode("latin-1")
        start = b"%b %b%b HTTP/1.1\r\n" % (self.method.encode(), before, self.path.encode())
        return start + own_headers + more + b"\r\n"


def parse_request(head: bytes) -> ConnectRequest:
    """Return the request in a head. Raises `NoRequestError` or `EgressError`."""
    start, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    if tunnel := _CONNECT.fullmatch(start):
        url = f"https://{tunnel[1]}"
        return ConnectRequest(target_of(url), url)
    plain = _PLAIN.fullmatch(start)
    if plain is None:
        raise NoRequestError
    method, url, path = plain.groups(default="")
    path = path if path.startswith("/") else f"/{path}"
    return ConnectRequest(target_of(url), url, method, path, tuple(_passed_on(lines)))


def _passed_on(lines: list[str]) -> list[str]:
    """Return the headers that are forwarded to the server. Raises `NoRequestError`."""
    forwarded = []
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise NoRequestError
        name = header[1].lower()
        if name not in _HOP_BY_HOP and not name.startswith("proxy-"):
            forwarded.append(line)
    return forwarded


__all__ = ["ConnectRequest", "EgressError", "NoRequestError", "parse_request"]
