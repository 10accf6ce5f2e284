"""One POST to a webhook: no proxy, no redirect, and without TLS only to private addresses."""

import http.client
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

POST_SECONDS = 10.0
LARGEST_ANSWER = 4096  # bytes that are read of it; none is kept
_GOOD = range(200, 300)


class PostError(Exception):
    """The webhook did not take it; the sentence says why."""


def post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Send, and return once it was taken. Raises `PostError`."""
    target = urlsplit(url)
    host = target.hostname or ""
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    connection: http.client.HTTPConnection
    try:
        if target.scheme == "https":
            connection = http.client.HTTPSConnection(host, target.port, timeout=POST_SECONDS)
        else:
            address = private_address(host, target.port or 80)
            connection = http.client.HTTPConnection(address, target.port, timeout=POST_SECONDS)
        try:
            connection.request("POST", path, body, {**headers, "host": target.netloc})
            answer = connection.getresponse()
            answer.read(LARGEST_ANSWER)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PostError(f"it cannot be reached ({type(error).__name__})") from error
    if answer.status not in _GOOD:
        raise PostError(f"it answered {answer.status}")


def private_address(host: str, port: int) -> str:
    """An address of a host all of whose addresses are private. Raises `PostError`, `OSError`."""
    found = {str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    for address in found:
        known = ipaddress.ip_address(address.partition("%")[0])
        if not known.is_private or known.is_link_local or known.is_unspecified:
            raise PostError("it is not private: use https")
    return min(found)
