"""Upstream for an HTTP API. Its document lists the tools, and each call is one request."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

import msgspec

from toolbus_common.config import Server
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.errors import UpstreamDeadError, UpstreamInvalidError, UpstreamRefusedError
from toolbus_common.openapi import Api, DocumentError, Operation, read, translated
from toolbus_common.openapi.servers import origin
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.mcp_messages.request_builder import trace_headers
from toolbus_executor.resilience.health_probe import NoProbeError
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.http1 import DEFAULT_SECONDS, Head
from toolbus_executor.transport.redirects import redirect_target
from toolbus_executor.upstreams.api_upstream import ApiUpstream, no_such_method
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.openapi.document_loader import fetch, is_remote, read_file
from toolbus_executor.upstreams.openapi.http import bytes_of
from toolbus_executor.upstreams.openapi.large_body import LargeBody
from toolbus_executor.upstreams.openapi.parameter_encoding import ArgumentError
from toolbus_executor.upstreams.openapi.request_builder import Request, request_of
from toolbus_executor.upstreams.openapi.responses import elsewhere, result_of
from toolbus_executor.upstreams.openapi.security import Credentials

Struck = Callable[[bytes], bytes]
INVALID_PARAMS = -32602
MAX_REDIRECTIONS = 3
_SERVER_ERROR = 500
_DEAD = (502, 503, 504)  # statuses that proxies return if the API is unavailable


class OpenApiUpstream(ApiUpstream[Operation]):
    """An API. Its credentials are sent only to its base address."""

    def __init__(
        self,
        declared: Server,
        headers: dict[str, str],
        credentials: dict[str, str],
        news: UpstreamCallbacks,
        way: Dialer,
        spills: SpillRegistry | None = None,
        bearer: Bearer | None = None,
    ) -> None:
        super().__init__(news, declared.refresh)
        self._spills = spills
        self._bearer = bearer
        self._declared = declared
        self._headers = headers
        self._values = credentials
        self._way = way
        self._api: Api | None = None
        self._credentials = Credentials({}, {}, {})
        self._transport: Transport | None = None

    async def open(self) -> Described:
        """Read the document and translate it."""
        await self._read()
        assert self._api is not None  # noqa: S101 - set by _read
        self._fresh = True
        return Described("openapi", self._api.version, self._api.instructions, {"tools": {}})

    async def call(self, call: CallAdmitted, seconds: float, _caller: Caller) -> bytes:
        """Send the request of an operation, and return its response as a tool result."""
        return await self.call_as(self._bearer, call, seconds)

    async def call_as(
        self,
        bearer: Bearer | None,
        call: CallAdmitted,
        seconds: float,
        _caller: Caller | None = None,
    ) -> bytes:
        """Send the request of an operation with this token, and return a tool result."""
        if call.method != TOOLS_CALL:
            raise no_such_method()
        async with asyncio.timeout(seconds):
            operation = await self._operation(call)
            try:
                request = request_of(
                    operation, msgspec.json.decode(call.arguments), self._credentials
                )
            except ArgumentError as error:
                raise UpstreamRefusedError(
                    f"Invalid arguments: {error}.", upstream_code=INVALID_PARAMS, sent=False
                ) from error
            return await self._responded(operation, request, call, bearer)

    async def probe(self) -> None:
        """Request the configured probe path. Any status below 500 means that the API is healthy."""
        if not self._declared.probe_path:
            raise NoProbeError
        assert self._transport is not None  # noqa: S101 - set by open
        accepts = (("Accept", "*/*"),)
        request = bytes_of("GET", self._declared.probe_path, self._transport.common, accepts)
        head, _ = await self._transport.request(request, None, DEFAULT_SECONDS)
        if head.status >= _SERVER_ERROR:
            raise UpstreamDeadError(
                f"The upstream responded to a probe with HTTP {head.status}; check its log."
            )

    async def close(self) -> None:
        """Close the connections."""
        self.lose("closed")
        if self._transport is not None:
            self._transport.close()

    async def _read(self) -> None:
        """Read the document, and replace all operations.

        An error leaves the operations unchanged.
        """
        source = self._declared.openapi
        text = await self._fetched() if is_remote(source) else None
        # Large documents take seconds, so they are translated in a thread.
        api = await asyncio.to_thread(self._translated, source, text)
        if self._api is None or self._api.base != api.base:
            if self._transport is not None:
                self._transport.close()
            self._refuse_elsewhere(api.base)
            self._transport = Transport(f"{api.base}/", self._headers, self._way)
            self._transport.bearer = self._bearer
        self._api, self._operations = api, api.operations
        self._credentials = Credentials(self._values, api.schemes, self._headers)
        self.left_out = api.left_out | self._credentials.unknown

    async def _fetched(self) -> bytes:
        """Return the fetched document. Only the API's origin receives the API's credentials."""
        source, base = self._declared.openapi, self._declared.base_url
        if not base or origin(base) == origin(source):
            meant = self._bearer is not None and origin(self._declared.oauth_url) == origin(source)
            shown = self._bearer if meant else None
            return await fetch(source, self._headers, self._way, shown)
        return await fetch(source, {}, replace(self._way, identity=None))

    def _translated(self, source: str, text: bytes | None) -> Api:
        declared = self._declared
        try:
            return translated(
                read(read_file(source) if text is None else text),
                source,
                base_url=declared.base_url,
                include=declared.operations.include,
                exclude=declared.operations.exclude,
                headers=self._reserved,
            )
        except DocumentError as error:
            raise UpstreamInvalidError(f"Its document cannot be used. {error}") from error

    @property
    def _reserved(self) -> tuple[str, ...]:
        """The headers that arguments cannot set."""
        identity = self._way.identity
        own = ["Authorization"] if self._bearer is not None else []
        return (*self._headers, *([identity.name] if identity is not None else []), *own)

    def _refuse_elsewhere(self, base: str) -> None:
        """Raise `UpstreamInvalidError` if the document would direct tokens to another origin.

        The operator can permit that origin with `base_url`.
        """
        audience = self._declared.oauth_url
        if self._bearer is None or self._declared.base_url or origin(base) == origin(audience):
            return
        raise UpstreamInvalidError(
            f"Its document has the base URL {origin(base)}, but its tokens were issued for "
            f"{origin(audience)}; set 'base_url' if the tokens may be sent there."
        )

    async def _responded(
        self, operation: Operation, request: Request, call: CallAdmitted, bearer: Bearer | None
    ) -> bytes:
        assert self._api is not None  # noqa: S101
        assert self._transport is not None  # noqa: S101 - the two are set together
        address, transport = self._api.base, self._transport
        credentials, target = self._credentials, _under(address, request.target)
        struck = _without_secrets(credentials, bearer)
        large = LargeBody(self._spills, struck) if self._spills is not None else None
        for _ in range(MAX_REDIRECTIONS):
            made = self._bytes(request, target, call)
            head, body = await transport.request(made, None, None, large, bearer=bearer)
            again = redirect_target(head, request.method, _at(address, target))
            if again is None:
                break
            target = again
        _refuse_dead(head)
        if 300 <= head.status < 400:  # noqa: PLR2004 - a redirect that was not followed
            return elsewhere(head)
        structured = "outputSchema" in operation.definition
        stored = large.result(head, structured=structured) if large is not None else None
        return stored or result_of(
            Head(head.status, {name: struck(value) for name, value in head.headers.items()}),
            struck(body),
            request.path,
            structured=structured,
            bodiless=request.method == "HEAD",
            bounded=self._spills is None,
        )

    def _bytes(self, request: Request, target: str, call: CallAdmitted) -> bytes:
        assert self._transport is not None  # noqa: S101
        reserved = {each.lower() for each in self._reserved}
        headers = [each for each in request.headers if each[0].lower() not in reserved]
        own = reserved | {name.lower() for name, _ in headers}
        headers += [each for each in trace_headers(call) if each[0] not in own]
        if self._transport.identity is not None:
            headers.append(self._transport.identity.header(call))
        if "accept" not in own:
            headers.append(("Accept", "application/json, */*;q=0.5"))
        if request.cookies:
            headers.append(
                ("Cookie", "; ".join(f"{name}={each}" for name, each in request.cookies))
            )
        if request.media:
            headers.append(("Content-Type", request.media))
        writes = request.method in ("POST", "PUT", "PATCH") or request.media
        body = request.body if writes else None
        return bytes_of(request.method, target, self._transport.common, headers, body)


def _refuse_dead(head: Head) -> None:
    """Raise `UpstreamDeadError`, which counts as a failure, if the API is unavailable."""
    if head.status in _DEAD:
        raise UpstreamDeadError(f"The upstream returned HTTP {head.status}; check its log.")


def _under(base: str, target: str) -> str:
    """Return the target with the path of the base address in front."""
    return urlsplit(base).path.rstrip("/") + target


def _at(base: str, target: str) -> str:
    """Return the complete URL of a target."""
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}{target}"


def _without_secrets(credentials: Credentials, bearer: Bearer | None) -> Struck:
    """Return the function that redacts credentials and tokens in a response."""
    if bearer is None:
        return credentials.struck
    return lambda text: bearer.struck(credentials.struck(text))
