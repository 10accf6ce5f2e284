"""HTTP client for control traffic: webhooks, SIEMs, witnesses, OAuth.

The client connects only to addresses that the egress policy permits. It follows no redirects, uses
no proxy, stores no cookies and decompresses nothing. Calls to upstream servers use a separate,
faster client: `toolbus_executor.transport`.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from toolbus_common.egress.http_messages import HttpError, HttpRequest, HttpResponse
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import SYSTEMS, Tls
from toolbus_common.egress.url_target import EgressError, target_of

if TYPE_CHECKING:
    from toolbus_common.egress.http_transport import HttpExchange

MAX_PER_HOST = 16
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class HttpClient:
    """HTTP client with common headers for all requests, and limits on concurrent requests.

    At most `max_in_progress` requests are in progress, including queued requests; further requests
    are rejected. 0 means no limit. At most `max_per_host` requests connect to the same host;
    further requests wait.
    """

    def __init__(
        self,
        resolver: CheckedResolver,
        tls: Tls = SYSTEMS,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        max_in_progress: int = 0,
        max_per_host: int = MAX_PER_HOST,
    ) -> None:
        self.resolver = resolver
        self.tls = tls
        self._headers = headers
        self._max_in_progress = max_in_progress
        self._max_per_host = max_per_host
        self._in_progress = 0
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._exchange: HttpExchange | None = None

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request and return its response, whatever the status. Raises `HttpError`."""
        try:
            target = target_of(request.url)
        except EgressError as error:
            raise HttpError(str(error)) from error
        if self._max_in_progress and self._in_progress >= self._max_in_progress:
            raise HttpError("too many requests are in progress; retry")
        new = asyncio.Semaphore(self._max_per_host)
        host = self._hosts.setdefault(target.authority, new)
        self._in_progress += 1
        try:
            async with host, asyncio.timeout(request.seconds):
                exchange = self._exchange or await self._opened()
                return await exchange.send(request)
        except TimeoutError as error:
            raise HttpError(f"it did not respond within {request.seconds:.3g} s") from error
        finally:
            self._in_progress -= 1

    def close(self) -> None:
        """Stop the threads of the resolver."""
        self.resolver.close()

    async def _opened(self) -> "HttpExchange":
        exchange = await asyncio.to_thread(_exchange_class)
        self._exchange = exchange(self.resolver, self.tls, self._headers)
        return self._exchange


def _exchange_class() -> "type[HttpExchange]":
    """Return `HttpExchange`, imported here because httpx costs 0.2 s and 6 MB of memory."""
    from toolbus_common.egress.http_transport import HttpExchange  # noqa: PLC0415

    return HttpExchange
