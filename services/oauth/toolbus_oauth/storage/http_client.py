"""One HTTP exchange with somebody else's server: checked where it leads, bounded, no redirect."""

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
MOST_SHOWN = 64  # certificates of ours that are at hand
MOST_AT_ONCE, MOST_OF_A_HOST = 16, 4
MOST_UNDER_WAY = 16  # with those that wait, where anybody can have something fetched


class FetchError(Exception):
    """Nothing usable came back; the clause says why. `ended`: the other side hung up."""

    def __init__(self, clause: str, *, ended: bool = False) -> None:
        super().__init__(clause)
        self.ended = ended


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Fetcher:
    """Speaks to addresses that `egress` allows; the client looks nothing up any more.

    It refuses what would be more than `most` exchanges under way, those that wait included.
    """

    egress: Egress
    tls: Tls = SYSTEMS
    most: int = MOST_UNDER_WAY
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MOST_AT_ONCE, "fetch")
    )
    _under_way: int = 0
    _shown: dict[str, Tls] = field(default_factory=dict, repr=False)
    _places: WeakValueDictionary[str, asyncio.Semaphore] = field(
        default_factory=WeakValueDictionary
    )

    async def get(self, url: str, *, named: bool = False, largest: int = LARGEST) -> Fetched:
        """What is there. Raises `FetchError`."""
        return await self._done("GET", url, None, {}, named, largest, "")

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        named: bool = False,
        shown: str = "",
    ) -> Fetched:
        """What is answered to who shows this certificate, if any. Raises `FetchError`."""
        return await self._done("POST", url, body, headers, named, LARGEST, shown)

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _done(self, *told: Any) -> Fetched:
        if self._under_way >= self.most:
            raise FetchError("too much is being fetched at once; try again")
        host = urlsplit(told[1]).netloc
        places = self._places.setdefault(host, asyncio.Semaphore(MOST_OF_A_HOST))
        self._under_way += 1
        try:
            async with places:  # who is slow keeps threads from nobody else
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, self._exchange, *told)
        finally:
            self._under_way -= 1

    def _exchange(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        named: bool,  # noqa: FBT001
        largest: int,
        shown: str,
    ) -> Fetched:
        ends = time.monotonic() + SECONDS
        try:
            target = target_of(url)
            self.egress.check_written(target, named=named)
            addresses = self.egress.judged(target, resolved_here(target), named=named)
            tls = self._showing(shown, target) if shown else self.tls
            with exchange(target, addresses, tls, SECONDS) as connection:
                sent = {"accept": "application/json", "connection": "close", **headers}
                connection.request(method, path_of(url), body, sent)
                answer = connection.getresponse()
                told = {name.lower(): value for name, value in answer.getheaders()}
                return Fetched(answer.status, told, _read(answer, largest, ends))
        except EgressError as error:
            raise FetchError(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(error) from error

    def _showing(self, shown: str, target: Target) -> Tls:
        """TLS that shows this certificate; made once for each, as that takes a while."""
        if target.scheme != "https":
            raise EgressError("a certificate is shown over https only; see that it has such a URL")
        found = self._shown.get(shown)
        if found is None:
            if len(self._shown) >= MOST_SHOWN:
                self._shown.clear()
            found = self._shown[shown] = replace(self.tls, shown=shown)
        return found


def _failed(error: Exception) -> FetchError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return FetchError(
            "its certificate is not trusted here; name who vouches for it in TOOLBUS_EGRESS_CA"
        )
    ended = isinstance(error, ssl.SSLError | ConnectionError)
    refused = isinstance(error, ConnectionRefusedError)
    said = f"it cannot be reached ({type(error).__name__})"
    return FetchError(said, ended=ended and not refused)


def _read(answer: http.client.HTTPResponse, largest: int, ends: float) -> bytes:
    parts, size = [], 0
    while piece := answer.read1(_PIECE):
        parts.append(piece)
        size += len(piece)
        if size > largest:
            raise FetchError(f"it answers with more than {largest} bytes")
    if time.monotonic() > ends:  # it was cut, and may not be whole
        raise FetchError("it takes too long")
    return b"".join(parts)
