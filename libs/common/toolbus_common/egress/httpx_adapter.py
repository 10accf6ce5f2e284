"""Transport of httpx over `HttpClient`, for libraries that use an httpx client."""

from typing import Final

import httpx2

from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpRequest

INVALID_REQUEST: Final = (httpx2.InvalidURL, ValueError)  # raised when a request is built
# Headers that httpx sets for its own connections, which are not used here.
_OF_A_CONNECTION = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "host", "transfer-encoding",
     "user-agent"}
)  # fmt: skip
# Headers that httpx would process: it would decompress the body, store cookies and parse a
# redirect.
_ACTED_ON = frozenset(
    {"content-encoding", "content-length", "location", "set-cookie", "transfer-encoding"}
)


class LimitedTransport(httpx2.AsyncBaseTransport):
    """Transport with the egress checks and the limits of an `HttpClient`.

    A response is complete, of limited size, and never decompressed. `operator_named` and
    `certificate` have the meaning of `HttpRequest`, for every request. Errors are `HttpError`.
    """

    def __init__(
        self, client: HttpClient, *, operator_named: bool = False, certificate: str = ""
    ) -> None:
        self._client = client
        self._operator_named = operator_named
        self._certificate = certificate

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request and return its complete response."""
        own = {
            name: value for name, value in request.headers.items() if name not in _OF_A_CONNECTION
        }
        response = await self._client.send(
            HttpRequest(
                request.method, str(request.url), await request.aread(), own,
                operator_named=self._operator_named, certificate=self._certificate,
            )
        )  # fmt: skip
        received = [  # bytes, because httpx encodes text as ASCII
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in response.headers.items()
            if name not in _ACTED_ON
        ]
        return httpx2.Response(response.status, headers=received, content=response.body)
