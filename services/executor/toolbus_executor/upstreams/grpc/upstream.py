"""Upstream for a gRPC server. Methods are read by reflection. Messages are converted from JSON."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import grpc
import msgspec

from toolbus_common.config import Server
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.egress import EgressError, as_http
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.mcp_messages.request_builder import trace_headers
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.upstreams.api_upstream import ApiUpstream, no_such_method
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.grpc.methods import Method, methods_in
from toolbus_executor.upstreams.grpc.reflection import (
    SERVICES,
    Reflected,
    ReflectionError,
    Request,
    Response,
)
from toolbus_executor.upstreams.grpc.tls import credentials
from toolbus_executor.upstreams.openapi.security import Credentials

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
ASK_SECONDS, PROBE_SECONDS = 10.0, 4.0
_HEALTH = "/grpc.health.v1.Health/Check"
_NOT_SERVING = b"\x08\x02"  # the encoded response of a server that is not healthy
MAX_MESSAGES, LARGEST_STREAM = 100, 4 * 1024 * 1024  # limits of the returned part of a stream
LARGEST_RESULT = 6 * 1024 * 1024
LONGEST_ERROR = 1_000
_OPTIONS = (
    ("grpc.max_receive_message_length", 7 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
# The library reports INTERNAL if the server rejects the stream before the request is sent.
_UNSUPPORTED = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)
_encode = msgspec.json.Encoder().encode


class GrpcUpstream(ApiUpstream[Method]):
    """A gRPC server. Its descriptors are read again every `refresh` seconds."""

    def __init__(
        self,
        declared: Server,
        headers: dict[str, str],
        news: UpstreamCallbacks,
        way: Dialer,
        bearer: Bearer | None = None,
    ) -> None:
        super().__init__(news, declared.refresh)
        self._bearer = bearer
        self._declared = declared
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._credentials = Credentials({}, {}, headers)
        self._way = way
        self._identity = way.identity.at(declared.grpc) if way.identity is not None else None
        self._channel: grpc.aio.Channel | None = None

    async def open(self) -> Described:
        """Connect and read the services.

        The host name is resolved and checked only here. All calls use the resulting addresses.
        """
        self._channel = await self._connected()
        await self._read()
        self._fresh = True
        return Described("grpc", "", "", {"tools": {}})

    async def call(self, call: CallAdmitted, seconds: float, _caller: Caller) -> bytes:
        """Call a method, and return its response as a tool result."""
        return await self.call_as(self._bearer, call, seconds)

    async def call_as(
        self,
        bearer: Bearer | None,
        call: CallAdmitted,
        seconds: float,
        _caller: Caller | None = None,
    ) -> bytes:
        """Call a method with this token, and return its response as a tool result."""
        if call.method != TOOLS_CALL:
            raise no_such_method()
        async with asyncio.timeout(seconds):
            method = await self._operation(call)
            request = method.request(msgspec.json.decode(call.arguments))
            metadata = (*self._own(call), *trace_headers(call))

            async def send(shown: Metadata) -> dict[str, Any]:
                headers = (*metadata, *shown)
                if method.streams:
                    return await self._collected(method, request, headers, seconds)
                return method.as_json(await self._unary(method.path, request, headers, seconds))

            try:
                made = await _with_token(bearer, send)
            except grpc.aio.AioRpcError as error:
                return self._failed(error, bearer)
        raw = _encode({"content": [_text(_encode(made).decode())], "structuredContent": made})
        return (
            raw
            if len(raw) <= LARGEST_RESULT
            else _refused("The response is too large; request less.")
        )

    async def probe(self) -> None:
        """Query the server's health service. If the server has none, any response means healthy."""
        try:
            response = await _with_token(
                self._bearer,
                lambda shown: self._unary(_HEALTH, b"", (*self._own(), *shown), PROBE_SECONDS),
            )
        except grpc.aio.AioRpcError as error:
            self._failed(error)
            return
        if response == _NOT_SERVING:
            raise UpstreamDeadError("The upstream reports NOT_SERVING; check its log.")

    async def close(self) -> None:
        """Close the connection."""
        self.lose("closed")
        if self._channel is not None:
            await self._channel.close()

    def _own(self, call: CallAdmitted | None = None) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a request: the configured headers and the identity."""
        if self._identity is None:
            return self._metadata
        name, value = self._identity.header(call)
        return (*self._metadata, (name.lower(), value))

    async def _connected(self) -> grpc.aio.Channel:
        url = self._declared.grpc
        target = urlsplit(url)
        try:
            found = await self._way.addresses(as_http(url))
        except (EgressError, OSError) as error:
            reason = f"The upstream cannot be reached: {error}."
            raise UpstreamDeadError(reason, sent=False) from error
        address = _target(found, target.port)
        # TLS is verified for the host name, although the address is used to connect.
        named: tuple[tuple[str, Any], ...] = (("grpc.default_authority", target.netloc),)
        if target.scheme == "grpc":
            return grpc.aio.insecure_channel(address, (*_OPTIONS, *named))
        named += (("grpc.ssl_target_name_override", target.hostname),)
        return grpc.aio.secure_channel(address, self._trusting(), (*_OPTIONS, *named))

    def _trusting(self) -> grpc.ChannelCredentials:
        try:
            return credentials(self._way.tls)
        except EgressError as error:
            reason = f"The upstream cannot be reached: {error}."
            raise UpstreamDeadError(reason, sent=False) from error

    @property
    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise UpstreamDeadError("The upstream is not connected; retry.", sent=False)
        return self._channel

    async def _unary(self, path: str, request: bytes, metadata: Any, seconds: float) -> bytes:
        answer: bytes = await self._open.unary_unary(path)(
            request, timeout=seconds, metadata=metadata
        )
        return answer

    async def _collected(
        self, method: Method, request: bytes, metadata: Any, seconds: float
    ) -> dict[str, Any]:
        """Return the first messages of a stream, and whether there are more."""
        stream = self._open.unary_stream(method.path)(request, timeout=seconds, metadata=metadata)
        found: list[dict[str, Any]] = []
        size, more = 0, False
        try:
            async for raw in stream:
                size += len(raw)
                more = len(found) >= MAX_MESSAGES or size > LARGEST_STREAM
                if more:
                    break
                found.append(method.as_json(raw))
        finally:
            stream.cancel()
        return {"messages": found, "more": more}

    def _failed(self, error: grpc.aio.AioRpcError, bearer: Bearer | None = None) -> bytes:
        """Return a tool result for an error that the method returned.

        For an error of the connection, raise `UpstreamDeadError` or `TimeoutError`.
        """
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TimeoutError from error
        if code is grpc.StatusCode.UNAVAILABLE:
            raise UpstreamDeadError(
                "The upstream cannot be reached (gRPC UNAVAILABLE); check its address."
            ) from error
        details = (error.details() or "no details")[:LONGEST_ERROR].encode("utf-8", "replace")
        details = bearer.struck(details) if bearer is not None else details
        text = self._credentials.struck(details).decode("utf-8", "replace")
        return _refused(f"{code.name}: {text}")

    async def _read(self) -> None:
        """Read the services, and replace all methods. An error leaves the methods unchanged."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                reflected = await self._reflected()
            found = await asyncio.to_thread(
                methods_in, reflected, self._declared.operations, self._declared.grpc
            )
        except TimeoutError as error:
            raise UpstreamDeadError(
                f"The upstream's reflection service did not respond within {ASK_SECONDS:g} s; "
                "check its log.",
                sent=False,
            ) from error
        except (ReflectionError, RecursionError) as error:
            raise UpstreamInvalidError(
                f"The upstream's reflection cannot be used: {error}."
            ) from error
        self._operations, self.left_out = found

    async def _reflected_by(self, service: str, shown: Metadata) -> Reflected:
        async with _Conversation(self._open, service, (*self._own(), *shown)) as talk:
            reflected = Reflected(talk.request)
            await reflected.read()
            return reflected

    async def _reflected(self) -> Reflected:
        """Return the services, read with the newest reflection version that the server supports."""
        failure: grpc.aio.AioRpcError | None = None
        for service in SERVICES:
            try:
                return await _with_token(self._bearer, partial(self._reflected_by, service))
            except grpc.aio.AioRpcError as error:
                if error.code() not in _UNSUPPORTED:
                    self._failed(error)
                    raise _unanswered(error) from error
                failure = error
        if failure is not None and failure.code() is grpc.StatusCode.INTERNAL:
            raise _unanswered(failure) from failure
        raise UpstreamInvalidError(
            "The upstream does not support server reflection; enable it there."
        )


async def _with_token(bearer: Bearer | None, request: Callable[[Metadata], Awaitable[T]]) -> T:
    """Make a request with a token.

    If the server rejects the token, retry once with another token.

    Raises:
        ConsentRequiredError: there is no other token.

    """
    if bearer is None:
        return await request(())
    line = bearer.now() or await bearer.line()
    try:
        return await request(_metadata_of(bearer))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise
    await bearer.another(line, "Bearer")
    return await request(_metadata_of(bearer))


def _metadata_of(bearer: Bearer) -> Metadata:
    token = bearer.token
    return (("authorization", f"Bearer {token}"),) if token else ()


def _target(addresses: list[str], port: int | None) -> str:
    """Return the addresses in the library's syntax.

    Only the family of the first address is used.
    """
    if ":" in addresses[0]:
        return "ipv6:" + ",".join(f"[{each}]:{port}" for each in addresses if ":" in each)
    return "ipv4:" + ",".join(f"{each}:{port}" for each in addresses if ":" not in each)


class _Conversation:
    """A stream of reflection requests and responses."""

    def __init__(self, channel: Any, service: str, metadata: Any) -> None:
        self._open = channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            request_serializer=Request.SerializeToString,
            response_deserializer=Response.FromString,
        )
        self._metadata = metadata
        self._stream: Any = None

    async def __aenter__(self) -> Self:
        self._stream = self._open(metadata=self._metadata, timeout=ASK_SECONDS)
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(asyncio.InvalidStateError):
            self._stream.cancel()

    async def request(self, request: Any) -> Any:
        """Send a request and return its response. Raises `ReflectionError`."""
        await self._stream.write(request)
        response = await self._stream.read()
        if response is grpc.aio.EOF:
            raise ReflectionError("the server closed the stream")
        return response


def _unanswered(error: grpc.aio.AioRpcError) -> ToolbusError:
    return UpstreamInvalidError(
        f"The upstream's reflection returned {error.code().name}; check its log."
    )


def _refused(message: str) -> bytes:
    return _encode({"content": [_text(message)], "isError": True})


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
