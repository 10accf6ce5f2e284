"""The MCP endpoint: authenticate the caller, parse the message, and route it."""

import logging
from collections.abc import Awaitable, Coroutine, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from toolbus_common import strict_json
from toolbus_common.access.anonymous import KEY_DIGEST
from toolbus_common.access.config_snapshot import ConfigView, key_digest_of
from toolbus_common.access.token_cache import is_person
from toolbus_common.contracts import ProtocolFamily
from toolbus_common.errors import OverloadedError, ToolbusError, UnauthorizedError
from toolbus_common.http_server.body import Receive
from toolbus_common.mcp import revisions
from toolbus_common.nats.client import bus_down
from toolbus_common.service.service import Service
from toolbus_ingress import protocol_versions
from toolbus_ingress.auth.anonymous import AnonymousAccess
from toolbus_ingress.auth.dpop import BEARER, SCHEMES, challenge_headers, rejection_code
from toolbus_ingress.auth.known_callers import KnownCallers
from toolbus_ingress.auth.protected_resource import INVALID_KEY, ProtectedResource, token_of
from toolbus_ingress.auth.request_context import Caller, RequestContext
from toolbus_ingress.auth.request_scope import code_mode_options_of, restrictions_of
from toolbus_ingress.catalog.model_lists import ModelLists
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import (
    UNKNOWN_SERVER,
    Headers,
    RejectedRequestError,
    RequestGuard,
    check_post,
    read_request_body,
    rejected,
)
from toolbus_ingress.mcp import tracing
from toolbus_ingress.mcp.call_handler import CallHandler
from toolbus_ingress.mcp.legacy import batch
from toolbus_ingress.mcp.legacy.batch import Batch
from toolbus_ingress.mcp.local_methods import SESSION, LocalMethods
from toolbus_ingress.mcp.notification_hub import NotificationHub
from toolbus_ingress.mcp.request_target import is_server_method
from toolbus_ingress.mcp.resume import LAST_EVENT, Resumption
from toolbus_ingress.mcp.server_requests import ROOTS_CHANGED
from toolbus_ingress.protocol_versions import ProtocolError, Request
from toolbus_ingress.sessions.event_log_store import EventLogStore
from toolbus_ingress.sessions.session_store import Session, Sessions
from toolbus_ingress.sessions.sse_writer import Send
from toolbus_ingress.sessions.suggestions import SuggestionLinks

log = logging.getLogger(__name__)

_ACCEPTED = Response(202, b"")
_ENDED = Response(204, b"")
_MODERN = tuple(version.encode() for version in revisions.MODERN)
_NOT_ALLOWED = Response(
    405,
    jsonrpc.error(
        405,
        jsonrpc.INVALID_REQUEST,
        "Method not allowed. Use POST; GET and DELETE require an Mcp-Session-Id header.",
    ).body,
    ((b"allow", b"POST"),),
)
_INITIALIZE_IN_BATCH = "initialize must not be part of a batch. Send it alone."
_NO_METHOD = jsonrpc.error(400, jsonrpc.INVALID_REQUEST, "The request has no 'method'. Add it.")
_NO_SESSION = jsonrpc.error(
    404,
    jsonrpc.INVALID_REQUEST,
    "Unknown session: it has ended, or belongs to another key. Initialize a new session.",
)
_TOO_MANY_STREAMS = "Too many streams are open. Retry later."


@dataclass(slots=True)
class Endpoint:
    """The handler of `/mcp` and `/mcp/<server>`."""

    service: Service
    guard: RequestGuard
    directory: ConfigView
    catalogue: Catalogue
    model_lists: ModelLists
    sessions: Sessions
    call_handler: CallHandler
    local_methods: LocalMethods
    notifications: NotificationHub
    resumption: Resumption
    event_logs: EventLogStore
    protected_resource: ProtectedResource
    anonymous: AnonymousAccess
    suggestions: SuggestionLinks
    largest_body: int
    max_in_flight: int
    _in_flight: int = field(init=False, default=0)
    known_callers: KnownCallers = field(init=False)

    def __post_init__(self) -> None:
        self.known_callers = KnownCallers(self.directory)

    def answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Awaitable[Response | None]:
        """Answer one HTTP request; None if the answer was streamed."""
        return self.run_limited(scope, self._answer(scope, server, receive, send))

    @property
    def overloaded(self) -> bool:
        """Whether the limit of requests in flight is reached."""
        return self._in_flight >= self.max_in_flight

    async def run_limited(
        self,
        scope: MutableMapping[str, Any],
        work: Coroutine[Any, Any, Response | None],
        request_id: bytes = b"null",
    ) -> Response | None:
        """Run `work` within the limit of requests in flight, and turn its errors into responses."""
        if self._in_flight >= self.max_in_flight:
            work.close()
            busy = OverloadedError("Too many requests are in flight. Retry.")
            return jsonrpc.failure(busy, request_id)
        self._in_flight += 1
        try:
            answer = await work
        except (RejectedRequestError, ProtocolError) as rejection:
            return rejection.response
        except UnauthorizedError as error:
            challenge = self.protected_resource.challenge(scope.get("path", ""))
            return _unauthorized(error, challenge, scope)
        except ToolbusError as error:
            answer = jsonrpc.failure(error, request_id)
        finally:
            self._in_flight -= 1
        if answer is not None and answer.status == jsonrpc.FORBIDDEN:
            return self.protected_resource.with_metadata_url(answer, scope.get("path", ""))
        return answer

    async def _answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Response | None:
        headers, verb = self.guard.headers(scope), scope["method"]
        if verb == "POST":
            check_post(headers, self.largest_body)
        elif SESSION not in headers or verb not in ("GET", "DELETE"):
            return _NOT_ALLOWED
        query = scope["query_string"]
        known = self.known_callers.find(headers, server, query)
        if known is None:
            await self.verify_token(headers, server)
            caller = self.caller(headers, scope, server, query)
            self.known_callers.add(headers, query, caller)
        elif self.service.bus.connected:
            caller = known
        else:
            raise bus_down()
        context = RequestContext(caller, headers, scope, send)
        if verb != "POST":
            return await self._serve_session(verb, context)
        return await self.dispatch(context, await read_request_body(receive, self.largest_body))

    # -- authentication ------------------------------------------------------------------------

    async def verify_token(self, headers: Headers, server: str = "") -> None:
        """Verify the access token of a request, if the request has one.

        Raises:
            UnauthorizedError: the token is invalid, or was issued for another endpoint.

        """
        token = token_of(headers)
        if token and self.service.bus.connected:
            await self.protected_resource.verify(token, self.protected_resource.resource(server))

    def caller(
        self, headers: Headers, scope: MutableMapping[str, Any], server: str, query: bytes = b""
    ) -> Caller:
        """Return the holder of the credential, or an anonymous caller where that is allowed.

        Raises the errors of `authenticate`.
        """
        if not self.anonymous.applies(headers):
            return self.authenticate(headers, scope, server, query)
        self.anonymous.check(headers, scope)
        return self._caller_of(KEY_DIGEST, headers, scope, server, query)

    def authenticate(
        self, headers: Headers, scope: MutableMapping[str, Any], server: str, query: bytes = b""
    ) -> Caller:
        """Return the holder of the credential.

        Raises:
            UnauthorizedError: there is no credential, or it is not valid here.
            BusDownError: no credential can be checked now.
            RejectedRequestError: the server does not exist.

        """
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        scheme = scheme.lower()
        if scheme not in SCHEMES or not secret:
            raise UnauthorizedError(
                "No credential was sent. Send an API key as 'Authorization: Bearer <key>'; "
                "'toolbus keys create' creates one."
            )
        key_digest = key_digest_of(secret.strip().decode("latin-1"))
        return self._caller_of(key_digest, headers, scope, server, query, scheme)

    def _caller_of(
        self,
        key_digest: str,
        headers: Headers,
        scope: MutableMapping[str, Any],
        server: str,
        query: bytes,
        scheme: bytes = BEARER,
    ) -> Caller:
        if not self.service.bus.connected:
            raise bus_down()
        restrictions = restrictions_of(headers)
        found = self.catalogue.holder(key_digest, restrictions)
        person = found is not None and is_person(found[0])
        if found is None or (scheme != BEARER and not person):
            raise UnauthorizedError(INVALID_KEY)
        if server and not self.catalogue.serves(server):
            raise rejected(UNKNOWN_SERVER, 404, "Unknown server. Check the name in the path.")
        options = code_mode_options_of(headers, self.catalogue.mode(found[0], query))
        holder = (
            self.protected_resource.holder_of(key_digest, server, headers, scope) if person else ""
        )
        return Caller(key_digest, *found, server, restrictions, options, holder)

    # -- sessions ------------------------------------------------------------------------------

    async def _serve_session(self, verb: str, context: RequestContext) -> Response | None:
        """Serve the session's own stream (GET), or end the session (DELETE)."""
        session = self.session(context)
        if verb == "DELETE":
            self.sessions.end(session)
            return _ENDED
        if not context.accepts_events:
            raise rejected(
                "accept", 406, "The response is text/event-stream. Add it to the Accept header."
            )
        if self.notifications.full:
            raise OverloadedError(_TOO_MANY_STREAMS)
        last = context.headers.get(LAST_EVENT)
        if last and session.resumable and await self.resumption.resume(context, session, last):
            return None
        await self.notifications.serve_session_stream(context.within(session))
        return None

    def session(self, context: RequestContext) -> Session:
        """Return the session that the request names.

        Raises:
            ProtocolError: the session does not exist for this caller.

        """
        session = self.sessions.find(context.headers[SESSION], context.caller.session_owner)
        if session is None:
            raise ProtocolError(_NO_SESSION)
        return session

    # -- messages ------------------------------------------------------------------------------

    def dispatch(self, context: RequestContext, body: bytes) -> Awaitable[Response | None]:
        """Answer a posted body. Raises `ProtocolError` and `ToolbusError`, now or when awaited."""
        message = parse_body(body)
        if isinstance(message, list):
            return self._batch(context, message)
        return self._message(context, message, body)

    async def _batch(self, context: RequestContext, messages: list[Any]) -> Response | None:
        if SESSION in context.headers:
            context = context.within(self.session(context))
        version = context.headers.get(b"mcp-protocol-version", b"")
        batch.check(messages, context.session, version)
        return await Batch(context, messages, self.event_logs).answer(self._batch_message)

    async def _batch_message(self, context: RequestContext, message: Any) -> Response | None:
        """Answer one message of a batch, even a malformed one; a notification has no answer."""
        try:
            request_id = protocol_versions.request_id_of(message)
        except ProtocolError as rejection:
            return rejection.response
        if isinstance(message, dict) and message.get("method") == "initialize":
            return jsonrpc.error(
                400,
                jsonrpc.INVALID_REQUEST,
                _INITIALIZE_IN_BATCH,
                request_id=request_id or b"null",
            )
        work = self._one_of_batch(context, message)
        answer = await self.run_limited(context.scope, work, request_id or b"null")
        is_notification = not request_id and isinstance(message, dict) and "method" in message
        return None if is_notification else answer

    async def _one_of_batch(self, context: RequestContext, message: Any) -> Response | None:
        return await self._message(context, message, strict_json.dump(message))

    def _message(
        self, context: RequestContext, message: Any, body: bytes
    ) -> Awaitable[Response | None]:
        """Answer one JSON-RPC message: a response, a notification or a request.

        Raises `ProtocolError` and `ToolbusError`, now or when awaited.
        """
        request_id = protocol_versions.request_id_of(message)
        if request_id and "method" not in message:
            return _ready(self._accept_response(context, body))
        request = protocol_versions.parse_request(message, request_id, context.headers)
        if (
            SESSION in context.headers
            and request.family is ProtocolFamily.LEGACY
            and request.method != "initialize"
        ):
            context = context.within(self.session(context))
        if not request.id:
            self._accept_notification(context, request)
            return _ready(_ACCEPTED)
        if is_server_method(request):
            return self.call_handler.answer(context, request)
        return self._local(context, request)

    async def _local(self, context: RequestContext, request: Request) -> Response | None:
        """Answer a request that needs no server, or serve a subscription."""
        if request.method == "subscriptions/listen" and request.family is ProtocolFamily.MODERN:
            if self.notifications.full:
                raise OverloadedError(_TOO_MANY_STREAMS)
            await self.notifications.serve_subscription(context, request)
            return None
        with tracing.local_span(context, request):
            return await self.local_methods.answer(context, request)

    def _accept_response(self, context: RequestContext, body: bytes) -> Response:
        """Accept a client's response to a request that this or another replica sent."""
        session = context.session
        if session is None:
            version = context.headers.get(b"mcp-protocol-version")
            if SESSION not in context.headers or version in _MODERN:
                raise ProtocolError(_NO_METHOD)
            session = self.session(context)
        self.sessions.update(session, "response", "", body)
        return _ACCEPTED

    def _accept_notification(self, context: RequestContext, request: Request) -> None:
        if request.method == "notifications/cancelled" and context.session is not None:
            request_id = request.params.get("requestId")
            if isinstance(request_id, str | int):
                raw_id = strict_json.dump(request_id).decode()
                self.sessions.update(context.session, "cancelled", raw_id)
        elif request.method == ROOTS_CHANGED and context.session is not None:
            self.sessions.on_roots_changed(context.session.sid)


async def _ready(response: Response) -> Response:
    return response


def parse_body(body: bytes) -> Any:
    """Parse the message in a body.

    Raises:
        ProtocolError: the body is not strict JSON.

    """
    try:
        return strict_json.parse(body)
    except strict_json.StrictJSONError as error:
        raise ProtocolError(
            jsonrpc.error(400, jsonrpc.PARSE_ERROR, f"Parse error: {error}.")
        ) from error


def _unauthorized(
    error: UnauthorizedError, metadata: bytes, scope: MutableMapping[str, Any]
) -> Response:
    sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    answer = jsonrpc.failure(error)
    headers = challenge_headers(error, metadata, sent.partition(b" ")[0])
    return Response(answer.status, answer.body, headers, rejection_code(error))
