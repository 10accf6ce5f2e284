"""HTTP requests with httpx, through a transport that connects only to checked addresses."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore2
import httpx2

from toolbus_common.egress.http_messages import HttpError, HttpRequest, HttpResponse
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import Tls
from toolbus_common.egress.url_target import EgressError, Target, target_of

PIECE = 64 * 1024  # bytes of a request's body in one write
MAX_HEADERS = 100  # of a response; h11 limits their size to 100 KiB
FEW_PIECES, SMALLEST_PIECE = 1000, 16  # minimum average bytes per piece
CONNECT_SECONDS = 3.0  # timeout per address, except for the last address
MAX_CERTIFICATES = 64  # client certificates whose TLS context is cached
OPERATOR_NAMED, CERTIFICATE = "operator_named", "certificate"  # extensions of a request
_TOO_LARGE = 431  # the status that h11 suggests for headers above its limit
_INVALID = "the request is not valid; correct its URL and headers"
_ALWAYS = {"accept-encoding": "identity", "connection": "close"}

for _name in ("httpx2", "httpcore2"):  # their logs can contain secrets
    logging.getLogger(_name).setLevel(logging.WARNING)


class CheckedBackend(httpcore2.AnyIOBackend):
    """Network backend that connects to the given addresses instead of the host of the request."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._stream: httpcore2.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - httpcore's signature
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that accepts, without name resolution."""
        *others, last = self._addresses
        for address in others:
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                self._stream = await super().connect_tcp(
                    address, port, CONNECT_SECONDS, local_address, socket_options
                )
                return self._stream
        self._stream = await super().connect_tcp(last, port, timeout, local_address, socket_options)
        return self._stream

    async def aclose(self) -> None:
        """Close the connection, even if its TLS handshake was cancelled."""
        if self._stream is not None:
            await self._stream.aclose()


class _Body(httpx2.AsyncByteStream):
    """Body of a response. Closing it closes the connection."""

    def __init__(self, response: httpcore2.Response, backend: CheckedBackend) -> None:
        self._response = response
        self._backend = backend

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream()

    async def aclose(self) -> None:
        await self._backend.aclose()


class EgressTransport(httpx2.AsyncBaseTransport):
    """Transport of httpx that connects only to addresses that the egress policy permits.

    The name is resolved once, every address is checked, and one of these addresses is used. The TLS
    certificate is verified for the name. Each request has a separate connection, so that
    credentials and client certificates of one request are never used by another. Two extensions of
    a request are read: `operator_named` and `certificate`, as in `HttpRequest`. Errors are
    `EgressError`, errors of httpcore, and `OSError`.
    """

    def __init__(self, resolver: CheckedResolver, tls: Tls) -> None:
        self._resolver = resolver
        self._tls = tls
        self._with_certificate: dict[str, Tls] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request and return its response. The body is read later."""
        target = target_of(str(request.url))
        named = bool(request.extensions.get(OPERATOR_NAMED))
        tls = self._tls_for(target, request.extensions.get(CERTIFICATE, ""))
        backend = CheckedBackend(await self._resolver.addresses(target, operator_named=named))
        try:
            response = await self._sent(request, target, tls, backend)
        except BaseException:
            await backend.aclose()
            raise
        return httpx2.Response(
            response.status, headers=response.headers, stream=_Body(response, backend)
        )

    async def _sent(
        self, request: httpx2.Request, target: Target, tls: Tls, backend: CheckedBackend
    ) -> httpcore2.Response:
        if target.scheme == "https" and "context" not in vars(tls):
            await asyncio.to_thread(tls.check)  # loading the authorities takes 20 ms
        url = httpcore2.URL(
            scheme=target.scheme,
            host=target.host,
            port=target.port,
            target=request.url.raw_path,
        )
        connection = httpcore2.AsyncHTTPConnection(
            url.origin,
            ssl_context=tls.context if target.scheme == "https" else None,
            network_backend=backend,
        )
        return await connection.handle_async_request(
            httpcore2.Request(
                request.method, url, headers=request.headers.raw, content=request.stream,
                extensions=request.extensions,
            )
        )  # fmt: skip

    def _tls_for(self, target: Target, certificate: str) -> Tls:
        """Return the TLS settings with this client certificate.

        They are cached: creation is costly.
        """
        if not certificate:
            return self._tls
        if target.scheme != "https":
            raise EgressError("a client certificate needs an https URL; configure one")
        found = self._with_certificate.get(certificate)
        if found is None:
            if len(self._with_certificate) >= MAX_CERTIFICATES:
                self._with_certificate.clear()
            found = self._with_certificate[certificate] = replace(self._tls, shown=certificate)
        return found


class HttpExchange:
    """Client that sends complete requests and returns responses of limited size."""

    def __init__(self, resolver: CheckedResolver, tls: Tls, headers: Mapping[str, str]) -> None:
        self._headers = {**_ALWAYS, **headers}
        self._client = httpx2.AsyncClient(
            transport=EgressTransport(resolver, tls),
            trust_env=False,  # no proxy, no .netrc
            follow_redirects=False,
            timeout=None,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # stores no cookie
        )

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request and return its response, without a time limit. Raises `HttpError`."""
        try:
            response = await self._client.send(self._encoded(request), stream=True)
            try:
                return await _read(response, request)
            finally:
                await response.aclose()
        except EgressError as error:
            raise HttpError(str(error)) from error
        except TimeoutError:
            raise
        except (httpcore2.ProtocolError, httpcore2.NetworkError, OSError) as error:
            raise _failed(error) from error
        except (httpx2.InvalidURL, ValueError) as error:
            raise HttpError(_INVALID) from error

    def _encoded(self, request: HttpRequest) -> httpx2.Request:
        own = {name.lower(): value for name, value in request.headers.items()}
        headers = {**self._headers, **own}
        if request.body:
            headers["content-length"] = str(len(request.body))
        return httpx2.Request(
            request.method,
            request.url,
            headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            content=_pieces(request.body) if request.body else None,
            extensions={OPERATOR_NAMED: request.operator_named, CERTIFICATE: request.certificate},
        )


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """Yield a body in pieces. Encrypting the whole body at once would block the event loop."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]


async def _read(response: httpx2.Response, request: HttpRequest) -> HttpResponse:
    """Return the response with its body, never decompressed, up to the limit of the request."""
    if len(response.headers.raw) > MAX_HEADERS:
        raise HttpError(f"its response has more than {MAX_HEADERS} headers")
    body = bytearray()
    count = 0
    async with aclosing(response.aiter_raw()) as pieces:
        async for piece in pieces:
            body += piece
            count += 1
            if count > FEW_PIECES and len(body) < SMALLEST_PIECE * count:
                raise HttpError("its response arrives in too many small pieces")
            if count % 100 == 0:
                await asyncio.sleep(0)  # reading received pieces does not yield to others
            if len(body) > request.max_bytes and request.cut:
                break
            if len(body) > request.max_bytes:
                raise HttpError(f"its response is larger than {request.max_bytes} bytes")
    headers = {
        name.lower().decode("latin-1"): value.decode("latin-1")
        for name, value in response.headers.raw
    }
    return HttpResponse(response.status_code, headers, bytes(body[: request.max_bytes]))


def _failed(error: Exception) -> HttpError:
    cause = _system_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return HttpError(
            "its certificate is not trusted; add its certificate authority to TOOLBUS_EGRESS_CA"
        )
    if isinstance(error, httpcore2.LocalProtocolError):
        return HttpError(_INVALID)
    if isinstance(error, httpcore2.RemoteProtocolError):
        return _protocol_error(error)
    refused = isinstance(cause, ConnectionRefusedError)
    ended = cause is None or isinstance(cause, ssl.SSLError | ConnectionError)
    name = type(cause or error).__name__
    return HttpError(f"it is unreachable ({name})", ended=ended and not refused)


def _protocol_error(error: httpcore2.RemoteProtocolError) -> HttpError:
    if error.__cause__ is None:  # an error of httpcore itself, not of h11
        return HttpError("it closed the connection without a response", ended=True)
    if getattr(error.__cause__, "error_status_hint", 0) == _TOO_LARGE:
        return HttpError("the headers of its response are too large")
    return HttpError("its response is not valid HTTP")


def _system_error(error: BaseException | None) -> OSError | None:
    """Return the error of the operating system or of TLS that caused `error`; None without one."""
    found = None
    while error is not None:
        if isinstance(error, OSError):
            found = error
        error = error.__cause__ or error.__context__
    return found
