"""One request to a declared URL: no proxy, no redirect, without TLS only to private addresses."""

import http.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from toolbus_common.config import Webhook
from toolbus_common.egress import Egress, EgressError, Target, target_of
from toolbus_common.egress.addresses import PUBLIC, kind_of
from toolbus_common.egress.http_client import open_connection, path_of
from toolbus_common.egress.resolver import resolved_here
from toolbus_common.egress.tls import SYSTEMS, Tls

POST_SECONDS = 10.0
LARGEST_ANSWER = 4096  # bytes that are read of it; none is kept
_GOOD = range(200, 300)


class PostError(Exception):
    """It was not taken; the sentence says why."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What was answered; `retry_after` is that header, where there is one."""

    status: int
    body: bytes
    retry_after: str = ""

    @property
    def good(self) -> bool:
        """Whether it was taken."""
        return self.status in _GOOD


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent where."""

    method: str
    url: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Poster:
    """Posts to addresses that `egress` allows; `named` tells which webhooks the operator named."""

    egress: Egress
    named: Callable[[Webhook], bool]
    tls: Tls = SYSTEMS
    resolve: Callable[[Target], list[str]] = resolved_here

    def post(self, hook: Webhook, body: bytes, headers: Mapping[str, str]) -> None:
        """Send, and return once it was taken. Raises `PostError`."""
        answered = self.ask(Request("POST", hook.url, body, headers), named=self.named(hook))
        if not answered.good:
            raise PostError(f"it answered {answered.status}")

    def ask(
        self, request: "Request", *, named: bool, largest: int = LARGEST_ANSWER
    ) -> HttpResponse:
        """Send, and take so many bytes of the answer, whatever it is. Raises `PostError`."""
        try:
            target = target_of(request.url)
            addresses = self.addresses(target, named=named)
            with open_connection(target, addresses, self.tls, POST_SECONDS) as connection:
                path = path_of(request.url)
                connection.request(request.method, path, request.body, request.headers)
                answer = connection.getresponse()
                told = answer.read(largest)
                return HttpResponse(answer.status, told, answer.headers.get("retry-after", ""))
        except EgressError as error:
            raise PostError(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PostError(f"it cannot be reached ({type(error).__name__})") from error

    def addresses(self, target: Target, *, named: bool) -> list[str]:
        """Where to connect to, checked. Raises `EgressError`, `PostError` or `OSError`."""
        self.egress.check_written(target, named=named)
        found = self.egress.judged(target, self.resolve(target), named=named)
        if target.scheme == "http" and not all(map(_is_private, found)):
            raise PostError("it is not private: use https, or syslog+tls")
        return found


def _is_private(address: str) -> bool:
    return kind_of(ip_address(address.partition("%")[0])) != PUBLIC
