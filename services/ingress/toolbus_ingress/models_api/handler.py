"""HTTP handler of the models API: authenticate, read the request, and answer in its dialect."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

from toolbus_common.access.principal import Principal
from toolbus_common.config import Injection
from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
)
from toolbus_common.errors import OverloadedError, ToolbusError, UnauthorizedError
from toolbus_common.http_server.body import Receive
from toolbus_common.model_api import routing
from toolbus_common.nats.client import bus_down
from toolbus_common.observability.trace_context import trace_id
from toolbus_common.observability.tracing import bind
from toolbus_ingress.auth.api_key_header import with_credential
from toolbus_ingress.auth.protected_resource import INVALID_KEY
from toolbus_ingress.auth.request_context import Caller, RequestContext
from toolbus_ingress.auth.request_scope import model_restrictions_of
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import (
    Headers,
    RejectedRequestError,
    check_post,
    read_request_body,
)
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.mcp.tracing import request_span, trace_context_of
from toolbus_ingress.models_api import errors, model_list, unknown_paths
from toolbus_ingress.models_api.added_tools import ToolInjector
from toolbus_ingress.models_api.agent_request import AgentModelRun, full_names, is_agent_request
from toolbus_ingress.models_api.errors import Dialect
from toolbus_ingress.models_api.model_call import ModelRun
from toolbus_ingress.models_api.request_reader import read_request
from toolbus_ingress.sessions.sse_writer import Send

METHODS = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": COUNT_TOKENS,
}
MODELS = "/v1/models"
# The headers in which clients name their session; the first valid one is used.
SESSIONS = (b"x-toolbus-session", b"x-claude-code-session-id", b"session_id", b"session-id")
_ONE_MODEL = f"{MODELS}/"
_ANTHROPIC_VERSION = b"anthropic-version"
_ANTHROPIC_METHODS = frozenset({MESSAGES, COUNT_TOKENS})
_SESSION = re.compile(rb"[!-~]{1,128}")
_NO_QUERY = b""


@dataclass(slots=True)
class ModelsApi:
    """The endpoints for models, beside the MCP endpoint and with the same credentials."""

    endpoint: Endpoint
    injector: ToolInjector = field(init=False)

    def __post_init__(self) -> None:
        """Create the cache of added tools."""
        endpoint = self.endpoint
        self.injector = ToolInjector(endpoint.catalogue, endpoint.largest_body)

    async def answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response | None:
        """Return the response to a request for a path that `serves` accepts; None if streamed."""
        if self.endpoint.overloaded:
            error = OverloadedError("Too many requests are in flight. Retry.")
            return self.failure(error, scope)
        return await self.endpoint.run_limited(scope, self._answer(scope, receive, send))

    def failure(self, error: ToolbusError, scope: Mapping[str, Any]) -> Response:
        """Return an error in the form of the API of the path."""
        resource = self.endpoint.protected_resource
        return errors.failure(error, dialect_of(scope), scope, resource)

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response | None:
        method = METHODS.get(scope["path"])
        if method is None and not _is_list(scope["path"]):
            return unknown_paths.response(scope["method"], scope["path"], dialect_of(scope))
        allowed = "GET" if method is None else "POST"
        if scope["method"] != allowed:
            message, header = f"Method not allowed. Use {allowed}.", (b"allow", allowed.encode())
            return errors.plain(405, message, dialect_of(scope), header)
        try:
            headers = self.endpoint.guard.headers(scope)
            if method is None:
                return await self._list(headers, scope)
            check_post(headers, self.endpoint.largest_body, events=True)
            caller = await self._caller(headers, scope)
            body = await read_request_body(receive, self.endpoint.largest_body)
            context = RequestContext(caller, headers, scope, send)
            return await self._run(context, method, body)
        except RejectedRequestError as rejection:
            return errors.rejection(rejection, dialect_of(scope))
        except ToolbusError as error:
            return self.failure(error, scope)

    async def _run(self, context: RequestContext, method: str, body: bytes) -> Response | None:
        headers, principal = context.headers, self._principal(context.caller)
        request = read_request(method, body)
        in_agent_mode = is_agent_request(method, headers, principal)
        default: Injection | None = "tools" if in_agent_mode else None
        added = self.injector.added(request, context.caller, principal, headers, default)
        if added is not None:
            request = self.injector.extended(request, added)
        trace = trace_context_of({}, headers)
        bind(trace.traceparent)
        session = _session_of(headers)
        run = trace_id(trace.traceparent) if trace.parent else session
        sticky = session.encode() or request.user_key or run.encode()
        dialect = dialect_of(context.scope)
        restrictions = model_restrictions_of(headers)
        arguments = (dialect, restrictions, trace, run)
        if in_agent_mode:
            agent_run = AgentModelRun(self.endpoint, context, request, *arguments)
            agent_run.sent = body
            if added is not None:
                agent_run.names = full_names(added.names, self.endpoint.catalogue)
            work: ModelRun = agent_run
        else:
            work = ModelRun(self.endpoint, context, request, *arguments)
        return await request_span(trace, method).around(work.answer(principal, sticky))

    async def _list(self, headers: Headers, scope: dict[str, Any]) -> Response:
        caller = await self._caller(headers, scope)
        names = routing.model_names(
            self._principal(caller),
            self.endpoint.directory.now.configuration,
            model_restrictions_of(headers),
            self.endpoint.model_lists.names,
        )
        path, dialect = scope["path"], dialect_of(scope)
        if path == MODELS:
            return model_list.list_response(names, dialect)
        return model_list.entry_response(path.removeprefix(_ONE_MODEL), names, dialect)

    # -- authentication ------------------------------------------------------------------------

    async def _caller(self, headers: Headers, scope: dict[str, Any]) -> Caller:
        """Return the caller. Raises the errors of `Endpoint.caller`."""
        endpoint, headers = self.endpoint, with_credential(headers)
        known = endpoint.known_callers.find(headers, "", _NO_QUERY)
        if known is None:
            await endpoint.verify_token(headers)
            caller = endpoint.caller(headers, scope, "", _NO_QUERY)
            endpoint.known_callers.add(headers, _NO_QUERY, caller)
            return caller
        if not endpoint.service.bus.connected:
            raise bus_down()
        return known

    def _principal(self, caller: Caller) -> Principal:
        found = self.endpoint.directory.now.principal_for(caller.key_digest, time())
        if found is None:
            raise UnauthorizedError(INVALID_KEY)
        return found


def serves(path: str) -> bool:
    """Return whether a path belongs to the models API, or is one that its clients may request.

    The REST APIs below `/v1/` must be routed first.
    """
    return path.startswith("/v1/") or unknown_paths.lacks_version(path)


def dialect_of(scope: Mapping[str, Any]) -> Dialect:
    """Return the API whose form the responses to a request have."""
    path = scope["path"]
    method = METHODS.get(path)
    if method in _ANTHROPIC_METHODS:
        return Dialect.ANTHROPIC
    if method is not None:
        return Dialect.OPENAI
    if any(name == _ANTHROPIC_VERSION for name, _ in scope["headers"]):
        return Dialect.ANTHROPIC
    return Dialect.ANTHROPIC if unknown_paths.is_of_messages(path) else Dialect.OPENAI


def _is_list(path: str) -> bool:
    return path == MODELS or path.startswith(_ONE_MODEL)


def _session_of(headers: Headers) -> str:
    """Return the id of the client's session; empty without an id of the accepted form."""
    for name in SESSIONS:
        value = headers.get(name)
        if value is not None and _SESSION.fullmatch(value):
            return value.decode()
    return ""
