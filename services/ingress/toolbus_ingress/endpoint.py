"""The MCP endpoint: one POST in, one answer out; tool calls go to the bus, lists come from here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any

from toolbus_common.asklane import VERSION as RELEASE
from toolbus_common.bus import bus_down
from toolbus_common.contracts import CallRequested, Era
from toolbus_common.declared import Key
from toolbus_common.errors import (
    InvalidError,
    OverloadedError,
    ToolbusError,
    UnauthorizedError,
    UnknownToolError,
)
from toolbus_common.grants import split_name
from toolbus_common.metrics import CALL_SECONDS, CALLS
from toolbus_common.room import Room
from toolbus_common.snapshot import Directory, proof_of
from toolbus_common.trace import continued
from toolbus_ingress import eras, jsonrpc, strictjson
from toolbus_ingress.eras import Request, RuleBrokenError
from toolbus_ingress.guard import (
    Guard,
    Headers,
    RefusedRequestError,
    check_post,
    refused,
    too_large,
)
from toolbus_ingress.jsonrpc import Response
from toolbus_ingress.listing import TTL_MS, Catalogue
from toolbus_ingress.names import is_server_name, is_tool_name
from toolbus_ingress.progress import ProgressStream

log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_OK = CALLS.labels("ok")
_SERVER_INFO = {"name": "toolbus", "version": RELEASE}
_CAPABILITIES: dict[str, Any] = {"tools": {}}
_INSTRUCTIONS = (
    "Tools of several servers behind one gateway; each is named server__tool. "
    "Calls are checked, priced and recorded; a refusal says what to do about it."
)
_ACCEPTED = Response(202, b"")
_NOT_ALLOWED = Response(
    405,
    jsonrpc.error(405, jsonrpc.INVALID_REQUEST, "This endpoint answers POST only.").body,
    ((b"allow", b"POST"),),
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever holds the key. `server` is set on an endpoint of one server."""

    proof: str
    name: str
    key: Key
    server: str


@dataclass(slots=True)
class Endpoint:
    """`/mcp` and `/mcp/<server>`."""

    room: Room
    guard: Guard
    directory: Directory
    catalogue: Catalogue
    largest_body: int
    body_timeout: float
    call_timeout: float
    most_in_flight: int
    _in_flight: int = field(default=0)

    async def answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Response | None:
        """Answer one HTTP request; None when the answer was streamed already."""
        if self._in_flight >= self.most_in_flight:
            return jsonrpc.failure(OverloadedError("Too many requests are under way; retry."))
        self._in_flight += 1
        try:
            return await self._answer(scope, server, receive, send)
        except (RefusedRequestError, RuleBrokenError) as refusal:
            return refusal.response
        except UnauthorizedError as error:
            sent = any(name == b"authorization" for name, _ in scope["headers"])
            return _unauthorized(error, sent=sent)
        except ToolbusError as error:
            return jsonrpc.failure(error)
        finally:
            self._in_flight -= 1

    async def _answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Response | None:
        headers = self.guard.headers(scope)
        if scope["method"] != "POST":
            return _NOT_ALLOWED
        check_post(headers, self.largest_body)
        caller = self._authenticate(headers, server)
        return await self._dispatch(caller, await self._read(receive), headers, send)

    def _authenticate(self, headers: Headers, server: str) -> Caller:
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not secret:
            raise UnauthorizedError(
                "Send a key as 'Authorization: Bearer <key>'; 'toolbus keys create' makes one."
            )
        if not self.room.bus.connected:
            raise bus_down()
        proof = proof_of(secret.strip().decode("latin-1"))
        found = self.directory.now.key_for(proof, time())
        if found is None:
            raise UnauthorizedError("This key opens nothing: it is unknown, revoked or expired.")
        if server and not self.catalogue.serves(server):
            raise refused("unknown_server", 404, "No such server.")
        return Caller(proof, *found, server)

    async def _read(self, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return body
        parts, size = [body], len(body)
        try:
            async with asyncio.timeout(self.body_timeout):
                while message.get("more_body", False):
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self.largest_body:
                        raise too_large(self.largest_body)
        except TimeoutError as error:
            raise refused("slow", 408, "The body took too long; send it at once.") from error
        return b"".join(parts)

    async def _dispatch(
        self, caller: Caller, body: bytes, headers: Headers, send: Send
    ) -> Response | None:
        try:
            message = strictjson.parse(body)
        except strictjson.StrictJSONError as error:
            raise RuleBrokenError(
                jsonrpc.error(400, jsonrpc.PARSE_ERROR, f"Parse error: {error}.")
            ) from error
        request_id = _request_id(message)
        if not request_id and isinstance(message, dict) and "method" not in message:
            # A posted response: nothing of ours asks legacy clients yet, so it answers nothing.
            return _ACCEPTED if headers.get(b"mcp-protocol-version") not in _MODERN else _NO_METHOD
        request = eras.read(message, request_id, headers)
        if not request.id:
            return _ACCEPTED
        if request.method == "tools/call":
            return await self._call(caller, request, headers, send)
        return self._local(caller, request)

    def _local(self, caller: Caller, request: Request) -> Response:
        """What needs nobody else."""
        if request.method == "tools/list":
            body = self.catalogue.tools(caller.name, caller.key, caller.server, request.era)
            return jsonrpc.result(request.id, body)
        told: dict[str, Any] | None = None
        if request.era is Era.MODERN:
            told = _discover() if request.method == "server/discover" else None
        elif request.method == "initialize":
            told = _initialize(request)
        elif request.method == "ping":
            told = {}
        if told is None:
            status = 404 if request.era is Era.MODERN else 200
            sentence = f"Method not found: {request.method[:128]}"
            return jsonrpc.error(status, jsonrpc.METHOD_NOT_FOUND, sentence, request_id=request.id)
        return jsonrpc.result(request.id, strictjson.dump(told))

    async def _call(
        self, caller: Caller, request: Request, headers: Headers, send: Send
    ) -> Response | None:
        began = perf_counter()
        call_id = self.room.calls.new_call_id()
        try:
            call = self._request(caller, request, headers, call_id)
            if call.progress:
                stream = ProgressStream(send, request.id, request.meta["progressToken"])
                answer = await stream.follow(self.room.calls, call)
            else:
                answer = jsonrpc.result(request.id, (await self.room.calls.ask(call)).body)
            _OK.inc()
        except ToolbusError as error:
            CALLS.labels(error.code).inc()
            answer = jsonrpc.failure(error, request.id, call_id)
        CALL_SECONDS.observe(perf_counter() - began)
        return answer

    def _request(
        self, caller: Caller, request: Request, headers: Headers, call_id: str
    ) -> CallRequested:
        name, arguments = request.params.get("name"), request.params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise InvalidError("tools/call needs a name (a string) and arguments (an object).")
        server, tool = (caller.server, name) if caller.server else split_name(name)
        if not is_server_name(server) or not is_tool_name(tool):
            raise UnknownToolError.named(name[:128])
        meta = request.meta
        parent = meta.get("traceparent") or headers.get(b"traceparent", b"").decode("latin-1")
        return CallRequested(
            call_id=call_id,
            reply_to=self.room.calls.address(call_id),
            server=server,
            tool=tool,
            proof=caller.proof,
            era=request.era,
            deadline=time() + self.call_timeout,
            traceparent=continued(parent if isinstance(parent, str) else ""),
            progress=isinstance(meta.get("progressToken"), str | int)
            and b"text/event-stream" in headers.get(b"accept", b""),
            arguments=strictjson.dump(arguments),
        )


_MODERN = tuple(version.encode() for version in eras.MODERN)
_NO_METHOD = jsonrpc.error(400, jsonrpc.INVALID_REQUEST, "The request names no method.")


def _request_id(message: Any) -> bytes:
    """The id as raw JSON; empty when there is none. Raises `RuleBrokenError` for other kinds."""
    if not isinstance(message, dict) or "id" not in message:
        return b""
    request_id = message["id"]
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        sentence = "The id must be a string or an integer."
        raise RuleBrokenError(jsonrpc.error(400, jsonrpc.INVALID_REQUEST, sentence))
    return strictjson.dump(request_id)


def _discover() -> dict[str, Any]:
    return {
        "resultType": "complete",
        "supportedVersions": list(eras.MODERN),
        "capabilities": _CAPABILITIES,
        "instructions": _INSTRUCTIONS,
        "ttlMs": TTL_MS,
        "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": _SERVER_INFO},
    }


def _initialize(request: Request) -> dict[str, Any]:
    asked = request.params.get("protocolVersion")
    return {
        "protocolVersion": asked if asked in eras.LEGACY else eras.LEGACY[0],
        "capabilities": _CAPABILITIES,
        "serverInfo": _SERVER_INFO,
        "instructions": _INSTRUCTIONS,
    }


def _unauthorized(error: UnauthorizedError, *, sent: bool) -> Response:
    challenge = b'Bearer realm="toolbus"'
    if sent:
        challenge += b', error="invalid_token"'
    answer = jsonrpc.failure(error)
    return Response(answer.status, answer.body, ((b"www-authenticate", challenge),))
