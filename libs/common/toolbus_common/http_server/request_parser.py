"""The parser of one connection's requests (httptools), and the sizes of what it has received."""

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools

_FRAMING = (b"content-length", b"transfer-encoding")
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class TooManyPipelinedError(Exception):
    """The client sends more requests on one connection than may wait for responses."""


class NoTunnelError(Exception):
    """The client requests a tunnel, which only a proxy can open."""


class RequestParser(ABC):
    """Parses the heads of requests into ASGI scopes, and counts what is not part of a body."""

    def __init__(self) -> None:
        self._parser = self._new_parser()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects_continue = False
        self._idle, self._in_body = True, False
        self._clean = True  # all bytes in the counters below belong to the current message
        self._received = self._body_bytes = self._chunk_bytes = self._chunk_began = 0

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            rest = data[upgrade.args[0] :]
            if rest:
                self._feed(rest)

    def _ignore_upgrade(self) -> None:
        """Continue as if the request had no Upgrade header (RFC 9110, 7.8).

        The parser ends such a message after the head, and would parse the body as another request.
        """
        self._parser = self._new_parser()
        kept = [b"%b: %b\r\n" % each for each in self._headers if each[0] in _FRAMING]
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(kept))

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # A connection that closes after its response may have received another request.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def on_message_begin(self) -> None:
        """Start a request. After `_ignore_upgrade`, the head is parsed a second time."""
        if self._in_body:
            return
        self._url, self._headers, self._expects_continue = b"", [], False
        if not self._clean:
            self._received = 0
        self._clean = self._idle = False

    def on_url(self, url: bytes) -> None:
        """Store a part of the request line."""
        if not self._in_body:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header. Trailers are dropped (RFC 9110, 6.5.1)."""
        if self._in_body:
            return
        lower = name.lower()
        if lower == b"expect":
            self._expects_continue = value.lower() == b"100-continue"
        self._headers.append((lower, value))

    def on_headers_complete(self) -> None:
        """Pass the request on, because its head is complete."""
        if self._in_body:
            return
        self._in_body = True
        parser = self._parser
        method, version = parser.get_method(), parser.get_http_version()
        if method == b"CONNECT":  # a proxy before the gateway would take 200 for an open tunnel
            raise NoTunnelError
        path, raw_path, query = _split(self._url)
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": "http",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "state": {},
        }
        self._expects_continue = self._expects_continue and version == "1.1"
        self._begin(scope, keep_alive=version != "1.0" and parser.should_keep_alive())

    @abstractmethod
    def _begin(self, scope: dict[str, Any], *, keep_alive: bool) -> None:
        """Accept a request whose head is complete. `scope` lacks the addresses."""

    def on_chunk_header(self) -> None:
        """Record the position at which a chunk starts."""
        self._chunk_began = self._body_bytes

    def on_chunk_complete(self) -> None:
        """Count the minimal framing bytes of a chunk. All other framing bytes are extensions."""
        self._chunk_bytes += len(b"%x\r\n\r\n" % (self._body_bytes - self._chunk_began))


@lru_cache(maxsize=128)
def _split(url: bytes) -> tuple[str, bytes, bytes]:
    """Return the decoded path, the raw path and the query of a request's target.

    Raises an error of the parser or `ValueError`, which rejects the request.
    """
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""
