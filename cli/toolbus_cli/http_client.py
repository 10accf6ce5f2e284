"""HTTP requests of commands: to the gateway, or to a URL that the user names.

This module uses the standard library's client, because importing httpx takes a third of the time in
which a command must start (ADR 31).
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from types import MappingProxyType
from urllib.parse import SplitResult, urlsplit

SECONDS = 30.0
OK = 200
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Response:
    """Response of any status; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def send(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
    seconds: float = SECONDS,
    max_bytes: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> Response:
    """Send one request and return its response, whose body is cut to `max_bytes`.

    No redirect is followed and no proxy is used. Raises `TimeoutError` if the server is silent for
    `seconds`, and `ConnectionError` if there is no other response.
    """
    try:
        target = urlsplit(url)
        connection = connection_to(target, seconds, tls)
    except ValueError as error:
        raise ConnectionError(str(error)) from error
    try:
        query = f"?{target.query}" if target.query else ""
        connection.request(method, f"{target.path or '/'}{query}", body, headers)
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, received, response.read(max_bytes))
    except TimeoutError:
        raise
    except (OSError, ValueError, HTTPException) as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def connection_to(
    target: SplitResult, seconds: float, context: ssl.SSLContext | None = None
) -> HTTPConnection:
    """Return an unopened connection to a URL's server. Raises `ValueError` for a bad port."""
    host, port = target.hostname or "", target.port
    if target.scheme == "https":
        return HTTPSConnection(host, port, timeout=seconds, context=context)
    return HTTPConnection(host, port, timeout=seconds)
