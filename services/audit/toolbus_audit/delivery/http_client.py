"""HTTP client for configured URLs: no proxy, no redirect, no TLS only to private addresses."""

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

TIMEOUT_SECONDS = 10.0
LARGEST_RESPONSE = 4096  # bytes of a response that are read by default
_SUCCESS = range(200, 300)


class PostError(Exception):
    """The receiver did not accept the request; the message says why."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Response; `retry_after` is the value of that header, or empty."""

    status: int
    body: bytes
    retry_after: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the status is 2xx."""
        return self.status in _SUCCESS


@dataclass(frozen=True, slots=True)
class Request:
    """Request to a URL."""

    method: str
    url: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HttpClient:
    """Client for addresses that `egress` allows.

    `is_operator_named` returns whether the operator (not an API caller) configured a webhook,
    which widens the addresses allowed.
    """

    egress: Egress
    is_operator_named: Callable[[Webhook], bool]
    tls: Tls = SYSTEMS
    resolve: Callable[[Target], list[str]] = resolved_here

    def post(self, hook: Webhook, body: bytes, headers: Mapping[str, str]) -> None:
        """Post to a webhook and return once it accepted the request. Raises `PostError`."""
        response = self.request_url(
            Request("POST", hook.url, body, headers), is_operator_named=self.is_operator_named(hook)
        )
        if not response.accepted:
            raise PostError(f"it returned status {response.status}")

    def request_url(
        self, request: "Request", *, is_operator_named: bool, max_bytes: int = LARGEST_RESPONSE
    ) -> HttpResponse:
        """Send and return the response of any status, cut to `max_bytes`. Raises `PostError`."""
        try:
            target = target_of(request.url)
            addresses = self.addresses(target, is_operator_named=is_operator_named)
            with open_connection(target, addresses, self.tls, TIMEOUT_SECONDS) as connection:
                path = path_of(request.url)
                connection.request(request.method, path, request.body, request.headers)
                response = connection.getresponse()
                content = response.read(max_bytes)
                retry_after = response.headers.get("retry-after", "")
                return HttpResponse(response.status, content, retry_after)
        except EgressError as error:
            raise PostError(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PostError(f"it is unreachable ({type(error).__name__})") from error

    def addresses(self, target: Target, *, is_operator_named: bool) -> list[str]:
        """Resolve and check the addresses. Raises `EgressError`, `PostError` or `OSError`."""
        self.egress.check_written(target, named=is_operator_named)
        found = self.egress.judged(target, self.resolve(target), named=is_operator_named)
        if target.scheme == "http" and not all(map(_is_private, found)):
            raise PostError("its address is public and needs encryption; use https, or syslog+tls")
        return found


def _is_private(address: str) -> bool:
    return kind_of(ip_address(address.partition("%")[0])) != PUBLIC
