"""The A2A endpoint: the agent card, and JSON-RPC requests of both protocol versions."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from toolbus_common import strict_json
from toolbus_common.a2a.protocol import BEFORE, CURRENT, Json, Protocol
from toolbus_common.contracts import TOOLS_CALL, ProtocolFamily
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_ingress.a2a import card, forms
from toolbus_ingress.a2a.listing import history_length, listed
from toolbus_ingress.a2a.message import call_of, text_and_data
from toolbus_ingress.a2a.tasks import INVALID, Listener, Task, Tasks
from toolbus_ingress.auth.api_key_header import with_credential
from toolbus_ingress.auth.request_context import Caller, RequestContext
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import (
    Headers,
    check_post,
    read_request_body,
    rejected,
)
from toolbus_ingress.mcp.endpoint import Endpoint, parse_body
from toolbus_ingress.protocol_versions import ProtocolError, Request, request_id_of
from toolbus_ingress.sessions.sse_writer import (
    KEEP_ALIVE_SECONDS,
    DisconnectWatch,
    EventStream,
    Send,
)

log = logging.getLogger(__name__)

VERSION = b"a2a-version"
TASK_NOT_FOUND, NOT_CANCELABLE, NO_PUSH, UNSUPPORTED = -32001, -32002, -32003, -32004
NO_VERSION = -32009
LONGEST_ID = 256
_ACCEPT = {b"accept": b"application/json, text/event-stream"}
_PROTOCOLS = {"1": CURRENT, "0": BEFORE}
_NO_CACHE = ((b"cache-control", b"no-store"), (b"vary", b"Authorization, X-Api-Key, A2A-Version"))


class RpcError(Exception):
    """A JSON-RPC error of A2A."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Rpc:
    """One request of a caller."""

    id: bytes
    method: str
    params: Json
    protocol: Protocol
    context: RequestContext

    @property
    def caller(self) -> Caller:
        """The caller."""
        return self.context.caller


@dataclass(slots=True)
class A2aApi:
    """The handler of `/a2a` and of the agent cards."""

    endpoint: Endpoint
    tasks: Tasks = field(default_factory=Tasks)

    async def answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response | None:
        """Return the response to a request for a path that `serves` accepts; None if streamed."""
        if scope["path"] == card.PATH:
            return await self.endpoint.run_limited(scope, self._answer(scope, receive, send))
        return await self.endpoint.run_limited(scope, self._card(scope))

    # -- cards ---------------------------------------------------------------------------------

    async def _card(self, scope: dict[str, Any]) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            raise rejected("method", 405, "Method not allowed. Use GET.")
        headers = with_credential(self.endpoint.guard.headers(scope))
        skills = None
        if b"authorization" in headers or self.endpoint.anonymous.applies(headers):
            caller = await self._caller(headers, scope)
            skills = card.skills_of(caller, self.endpoint.catalogue)
        old = scope["path"].endswith("/agent.json")
        protocol = CURRENT if headers.get(VERSION, b"").startswith(b"1") and not old else BEFORE
        body = strict_json.dump(self._written(scope, headers, protocol, skills))
        return Response(jsonrpc.OK, body, _NO_CACHE)

    def _written(
        self, scope: Any, headers: Headers, protocol: Protocol, skills: list[Json] | None
    ) -> Json:
        base = self.endpoint.protected_resource.public_url
        if not base:  # the guard has checked the host
            host = headers.get(b"host", b"").decode("latin-1")
            base = f"{scope.get('scheme', 'http')}://{host}"
        return card.card_of(base, protocol, skills)

    # -- requests ------------------------------------------------------------------------------

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response | None:
        if scope["method"] != "POST":
            raise rejected("method", 405, "Method not allowed. Use POST.")
        headers = with_credential(self.endpoint.guard.headers(scope))
        check_post(headers, self.endpoint.largest_body, events=True)
        caller = await self._caller(headers, scope)
        body = await read_request_body(receive, self.endpoint.largest_body)
        # The server may send progress of the call even if the client does not receive any.
        context = RequestContext(caller, {**headers, **_ACCEPT}, scope, send, write=_ignore)
        request_id = b"null"
        try:
            message = parse_body(body)
            request_id = request_id_of(message) or b"null"
            rpc = _request(message, request_id, headers, context)
            method = self._methods(rpc.protocol).get(rpc.method)
            if method is None:
                raise _unknown(rpc)
            return await method(rpc)
        except ProtocolError as error:  # in A2A, JSON-RPC errors have the status 200
            return Response(jsonrpc.OK, error.response.body)
        except RpcError as error:
            return jsonrpc.error(jsonrpc.OK, error.code, error.message, request_id=request_id)
        except ToolbusError as error:
            return jsonrpc.failure(error, request_id)

    def _methods(
        self, protocol: Protocol
    ) -> dict[str, Callable[[Rpc], Awaitable[Response | None]]]:
        return {
            protocol.send: self._send,
            protocol.stream: self._stream,
            protocol.get: self._get,
            protocol.cancel: self._cancel,
            protocol.listed: self._list,
            protocol.subscribe: self._subscribe,
            protocol.card: self._extended_card,
        }

    async def _caller(self, headers: Headers, scope: dict[str, Any]) -> Caller:
        await self.endpoint.verify_token(headers)
        return self.endpoint.caller(headers, scope, "", scope["query_string"])

    async def _send(self, rpc: Rpc) -> Response:
        configuration = rpc.params.get("configuration")
        configuration = configuration if isinstance(configuration, dict) else {}
        history = history_length(configuration)
        task = self._begin(rpc)
        if rpc.protocol.waits(configuration):
            await task.done.wait()
            if task.error is not None and task.error.code in INVALID:
                raise task.error
        return _result(rpc, forms.sent(task, rpc.protocol, history))

    async def _stream(self, rpc: Rpc) -> None:
        await self._follow(rpc, self._begin(rpc))

    async def _subscribe(self, rpc: Rpc) -> None:
        task = self._found(rpc)
        if task.status.ended:
            raise RpcError(UNSUPPORTED, "The task has ended. Get it instead.")
        await self._follow(rpc, task)

    async def _get(self, rpc: Rpc) -> Response:
        history = history_length(rpc.params)
        return _result(rpc, forms.task_of(self._found(rpc), rpc.protocol, history=history))

    async def _list(self, rpc: Rpc) -> Response:
        return _result(rpc, listed(self.tasks.of(rpc.caller), rpc.params, rpc.protocol))

    async def _cancel(self, rpc: Rpc) -> Response:
        task = self._found(rpc)
        if task.status.ended:
            raise RpcError(NOT_CANCELABLE, "The task has ended and cannot be cancelled.")
        await self.endpoint.call_handler.cancel(task.call_id)
        await task.done.wait()
        return _result(rpc, forms.task_of(task, rpc.protocol))

    async def _extended_card(self, rpc: Rpc) -> Response:
        skills = card.skills_of(rpc.caller, self.endpoint.catalogue)
        scope, headers = rpc.context.scope, rpc.context.headers
        return _result(rpc, self._written(scope, headers, rpc.protocol, skills))

    # -- tasks ---------------------------------------------------------------------------------

    def _found(self, rpc: Rpc) -> Task:
        task = self.tasks.find(rpc.params.get("id"), rpc.caller)
        if task is None:
            raise RpcError(
                TASK_NOT_FOUND,
                "Unknown task: the id is invalid or expired, or belongs to another key or replica.",
            )
        return task

    def _begin(self, rpc: Rpc) -> Task:
        """Start the call that a message requests. Raises `RpcError` and `ToolbusError`."""
        message = rpc.params.get("message")
        if not isinstance(message, dict):
            raise InvalidError("params must contain a message (an object).")
        if message.get("taskId"):
            known = self.tasks.find(message["taskId"], rpc.caller)
            if known is None:
                raise RpcError(TASK_NOT_FOUND, "Unknown task. Send the message without taskId.")
            raise RpcError(UNSUPPORTED, "The task needs no input. Send the message without taskId.")
        context_id = message.get("contextId") or ""
        if not isinstance(context_id, str) or len(context_id) > LONGEST_ID:
            raise InvalidError(f"contextId must be a string of at most {LONGEST_ID} characters.")
        skill, arguments = call_of(rpc.params, rpc.caller, self.endpoint.catalogue)
        params = {"name": skill, "arguments": arguments}
        request = Request(b"null", TOOLS_CALL, params, ProtocolFamily.MODERN, {"progressToken": 0})
        calls = self.endpoint.service.calls
        task = self.tasks.begin(rpc.caller, calls.new_call_id(), context_id)
        task.message = text_and_data(message)
        calls.spawn(self._run(task, rpc.context, request))
        return task

    async def _run(self, task: Task, context: RequestContext, request: Request) -> None:
        handler = self.endpoint.call_handler
        try:
            task.completed(await handler.run(context, request, task.call_id, task.notified))
        except ToolbusError as error:
            task.failed(error)
        except BaseException as error:
            task.failed(ToolbusError("Internal error. The log of the ingress service has details."))
            if not isinstance(error, Exception):
                raise
            log.exception("agent_task.failed")
        finally:
            self.tasks.end(task, context.caller)

    async def _follow(self, rpc: Rpc, task: Task) -> None:
        """Stream a task, its updates and its artifact until it ends or the client disconnects."""
        stream, protocol, listener = EventStream(rpc.context.send), rpc.protocol, Listener()
        task.listeners.add(listener)
        watch = DisconnectWatch(rpc.context.scope, listener.leave)
        try:
            await stream.event(_line(rpc, forms.sent(task, protocol)))
            while not listener.left:
                status = await listener.next(KEEP_ALIVE_SECONDS)
                if status is None:
                    await stream.comment()
                    continue
                if status.ended and task.parts:
                    await stream.event(_line(rpc, forms.artifact_update(task, protocol)))
                update = forms.status_update(task, status, protocol)
                await stream.event(_line(rpc, update), more=not status.ended)
                if status.ended:
                    return
        finally:
            watch.stop()
            task.listeners.discard(listener)


def serves(path: str) -> bool:
    """Return whether a path belongs to A2A."""
    return path == card.PATH or path in card.CARDS


def _request(message: Any, request_id: bytes, headers: Headers, context: RequestContext) -> Rpc:
    """Return a request. Raises `RpcError`."""
    valid = isinstance(message, dict) and message.get("jsonrpc") == "2.0" and "id" in message
    if not valid or not isinstance(message.get("method"), str):
        raise RpcError(jsonrpc.INVALID_REQUEST, "The body must be one JSON-RPC 2.0 request.")
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise RpcError(jsonrpc.INVALID_PARAMS, "params must be an object.")
    protocol = BEFORE if "/" in message["method"] else CURRENT
    version = headers.get(VERSION, b"").decode("latin-1").strip()
    if version and _PROTOCOLS.get(version.partition(".")[0]) is not protocol:
        raise RpcError(
            NO_VERSION,
            f"A2A-Version {version[:32]} does not fit the method. Use 1.0 or 0.3.",
        )
    return Rpc(request_id, message["method"], params, protocol, context)


def _unknown(rpc: Rpc) -> RpcError:
    if rpc.protocol.push in rpc.method:
        return RpcError(NO_PUSH, "Push notifications are not supported. Stream or poll the task.")
    return RpcError(jsonrpc.METHOD_NOT_FOUND, f"Unknown method {rpc.method[:64]}.")


def _result(rpc: Rpc, content: Json) -> Response:
    return jsonrpc.result(rpc.id, strict_json.dump(content))


def _line(rpc: Rpc, content: Json) -> bytes:
    return jsonrpc.result(rpc.id, strict_json.dump(content)).body


def _ignore(_message: bytes) -> None:
    """Ignore a message of a call; its progress is reported separately."""
