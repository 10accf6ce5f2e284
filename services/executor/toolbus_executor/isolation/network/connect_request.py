"""What a program asks of a proxy: where it wants to go, and what is sent on. Pure."""

import re
from dataclasses import dataclass

from toolbus_common.egress import EgressError, Target, target_of

_CONNECT = re.compile(r"CONNECT ([^\s/?#@\\]+:[0-9]{1,5}) HTTP/1\.[01]")
_PLAIN = re.compile(r"((?!CONNECT )[A-Z]{1,32}) (http://[^\s/?#@\\]+)([/?][!-~]*)? HTTP/1\.[01]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t -~\x80-\xff]*")
# About this connection only, or said by us.
_OURS = frozenset({"connection", "keep-alive", "host", "upgrade"})


class NoRequestError(Exception):
    """What came is nothing a proxy is asked."""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A target, the URL it was named by, and the head sent on; a tunnel has none."""

    target: Target
    url: str
    method: str = ""
    path: str = ""
    headers: tuple[str, ...] = ()

    @property
    def is_tunnel(self) -> bool:
        """Whether bytes pass as they are, both ways."""
        return not self.method

    def onward(self, before: bytes = b"", more: bytes = b"") -> bytes:
        """The head as it is sent on: to the host that was judged, and for one request only."""
        host = self.url.removeprefix("http://")
        lines = "".join(f"{each}\r\n" for each in self.headers)
        about = f"Host: {host}\r\n{lines}Connection: close\r\n".encode("latin-1")
        start = b"%b %b%b HTTP/1.1\r\n" % (self.method.encode(), before, self.path.encode())
        return start + about + more + b"\r\n"


def asked_in(head: bytes) -> ConnectRequest:
    """What a request's head asks for. Raises `NoRequestError` or `EgressError`."""
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
    """Of the headers those that are for the server. Raises `NoRequestError`."""
    kept = []
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise NoRequestError
        name = header[1].lower()
        if name not in _OURS and not name.startswith("proxy-"):
            kept.append(line)
    return kept


__all__ = ["ConnectRequest", "EgressError", "NoRequestError", "asked_in"]
