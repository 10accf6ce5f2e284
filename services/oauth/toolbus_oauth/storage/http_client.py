"""HTTP client for documents and token endpoints: egress-checked, bounded, without redirects."""

import asyncio
import http.client
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from toolbus_common.egress import Egress, EgressError, target_of
from toolbus_common.egress.http_client import exchange, path_of
from toolbus_common.egress.resolver import resolved_here
from toolbus_common.egress.tls import SYSTEMS, Tls
from toolbus_common.egress.url_target import Target

SECONDS = 10.0
LARGEST = 256 * 1024
_PIECE = 16 * 1024
MOST_SHOWN = 64  # client certificates whose TLS context is cached
MOST_AT_ONCE, MOST_OF_A_HOST = 16, 4
MOST_IN_PROGRESS = 16  # queued ones included, because unauthenticated requests can cause fetches


class FetchError(Exception):
    """No usable response; the message is a clause that says why.

    `ended`: the peer closed the connection.
    """

    def __init__(self, clause: str, *, ended: bool = False) -> None:
        super().__init__(clause)
        self.ended = ended


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class HttpClient:
    """HTTP client for addresses that `egress` allows; it resolves names before it connects.

    At most `most` exchanges are in progress, queued ones included; more are rejected.
    """

    egress: Egress
    tls: Tls = SYSTEMS
    most: int = MOST_IN_PROGRESS
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MOST_AT_ONCE, "fetch")
    )
    _in_progress: int = 0
    _shown: dict[str, Tls] = field(default_factory=dict, repr=False)
    _slots: WeakValueDictionary[str, asyncio.Semaphore] = field(default_factory=WeakValueDictionary)

    async def get(self, url: str, *, named: bool = False, largest: int = LARGEST) -> HttpResponse:
        """GET a URL. Raises `FetchError`.

        `named` says that an operator configured this destination; `largest` is in bytes.
        """
        return await self._run_in_thread("GET", url, None, {}, named, largest, "")

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        named: bool = False,
        shown: str = "",
    ) -> HttpResponse:
        """POST to a URL, with this client certificate (PEM) if any. Raises `FetchError`."""
        return await self._run_in_thread("POST", url, body, headers, named, LARGEST, shown)

    def close(self) -> None:
        """Stop the thread pool; queued exchanges are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run_in_thread(self, *arguments: Any) -> HttpResponse:
        if self._in_progress >= self.most:
            raise FetchError("too many fetches are in progress; retry")
        host = urlsplit(arguments[1]).netloc
        slots = self._slots.setdefault(host, asyncio.Semaphore(MOST_OF_A_HOST))
        self._in_progress += 1
        try:
            async with slots:  # a slow host must not use up all threads
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, self._exchange, *arguments)
        finally:
            self._in_progress -= 1

    def _exchange(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        named: bool,  # noqa: FBT001
        largest: int,
        shown: str,
    ) -> HttpResponse:
        ends = time.monotonic() + SECONDS
        try:
            target = target_of(url)
            self.egress.check_written(target, named=named)
            addresses = self.egress.judged(target, resolved_here(target), named=named)
            tls = self._tls_with_certificate(shown, target) if shown else self.tls
            with exchange(target, addresses, tls, SECONDS) as connection:
                sent = {"accept": "application/json", "connection": "close", **headers}
                connection.request(method, path_of(url), body, sent)
                response = connection.getresponse()
                received = {name.lower(): value for name, value in response.getheaders()}
                return HttpResponse(response.status, received, _read(response, largest, ends))
        except EgressError as error:
            raise FetchError(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(error) from error

    def _tls_with_certificate(self, shown: str, target: Target) -> Tls:
        """Return the TLS context with this client certificate, cached because it is costly."""
        if target.scheme != "https":
            raise EgressError("a client certificate needs an https URL; configure one")
        found = self._shown.get(shown)
        if found is None:
            if len(self._shown) >= MOST_SHOWN:
                self._shown.clear()
            found = self._shown[shown] = replace(self.tls, shown=shown)
        return found


def _failed(error: Exception) -> FetchError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return FetchError(
            "its certificate is not trusted; add its certificate authority to TOOLBUS_EGRESS_CA"
        )
    ended = isinstance(error, ssl.SSLError | ConnectionError)
    refused = isinstance(error, ConnectionRefusedError)
    reason = f"it is unreachable ({type(error).__name__})"
    return FetchError(reason, ended=ended and not refused)


def _read(response: http.client.HTTPResponse, largest: int, ends: float) -> bytes:
    parts, size = [], 0
    while piece := response.read1(_PIECE):
        parts.append(piece)
        size += len(piece)
        if size > largest:
            raise FetchError(f"its response is larger than {largest} bytes")
    if time.monotonic() > ends:  # the body may be truncated
        raise FetchError(f"it did not respond within {SECONDS:.0f} s")
    return b"".join(parts)
