"""One POST to a webhook: no proxy, no redirect, and without TLS only to private addresses."""

import http.client
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from toolbus_common.declared import Webhook
from toolbus_common.egress import Egress, EgressError, Target, target_of
from toolbus_common.egress.addresses import PUBLIC, kind_of
from toolbus_common.egress.resolving import resolved_here
from toolbus_common.egress.tls import SYSTEMS, Tls

POST_SECONDS = 10.0
LARGEST_ANSWER = 4096  # bytes that are read of it; none is kept
_GOOD = range(200, 300)


class PostError(Exception):
    """The webhook did not take it; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Poster:
    """Posts to addresses that `egress` allows; `named` tells which webhooks the operator named."""

    egress: Egress
    named: Callable[[Webhook], bool]
    tls: Tls = SYSTEMS
    resolve: Callable[[Target], list[str]] = resolved_here

    def post(self, hook: Webhook, body: bytes, headers: Mapping[str, str]) -> None:
        """Send, and return once it was taken. Raises `PostError`."""
        try:
            target = target_of(hook.url)
            addresses = self._addresses(target, named=self.named(hook))
            connection = self._connected(target, addresses)
            try:
                connection.request("POST", _path(hook.url), body, headers)
                answer = connection.getresponse()
                answer.read(LARGEST_ANSWER)
            finally:
                connection.close()
        except EgressError as error:
            raise PostError(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PostError(f"it cannot be reached ({type(error).__name__})") from error
        if answer.status not in _GOOD:
            raise PostError(f"it answered {answer.status}")

    def _addresses(self, target: Target, *, named: bool) -> list[str]:
        self.egress.check_written(target, named=named)
        found = self.egress.judged(target, self.resolve(target), named=named)
        if target.scheme == "http" and not all(map(_is_private, found)):
            raise PostError("it is not private: use https")
        return found

    def _connected(self, target: Target, addresses: list[str]) -> http.client.HTTPConnection:
        """A connection that is open already: the client looks nothing up any more."""
        connection = http.client.HTTPConnection(target.host, target.port, timeout=POST_SECONDS)
        opened = _opened(addresses, target.port)
        if target.scheme == "https":
            connection.default_port = http.client.HTTPS_PORT
            try:
                opened = self.tls.context.wrap_socket(opened, server_hostname=target.host)
            except BaseException:
                opened.close()
                raise
        connection.sock, connection.auto_open = opened, 0
        return connection


def _opened(addresses: list[str], port: int) -> socket.socket:
    failure = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), POST_SECONDS)
        except OSError as error:
            failure = error
    raise failure


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _is_private(address: str) -> bool:
    return kind_of(ip_address(address.partition("%")[0])) != PUBLIC
