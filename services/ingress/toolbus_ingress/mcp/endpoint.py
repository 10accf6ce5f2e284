"""The MCP endpoint: who asks, what it is, and who answers it."""

import logging
from collections.abc import Awaitable, Coroutine, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from toolbus_common import strict_json
from toolbus_common.access.anonymous import KEY_DIGEST
from toolbus_common.access.config_snapshot import ConfigProjection, key_digest_of
from toolbus_common.access.token_cache import is_person
from toolbus_common.contracts import ProtocolFamily
from toolbus_common.errors import OverloadedError, ToolbusError, UnauthorizedError
from toolbus_common.http_server.body import Receive
from toolbus_common.nats.connection import bus_down
from toolbus_common.service.service import Service
from toolbus_ingress import protocol_versions
from toolbus_ingress.auth.anonymous import AnonymousAccess
from toolbus_ingress.auth.dpop import BEARER, SCHEMES, challenged, rejection
from toolbus_ingress.auth.protected_resource import Identity, token_of
from toolbus_ingress.auth.request_context import Caller, Visit
from toolbus_ingress.auth.request_scope import asked_terms, restriction_of
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import (
    UNKNOWN_SERVER,
    Guard,
    Headers,
    RefusedRequestError,
    check_post,
    refused,
    whole_body,
)
from toolbus_ingress.mcp import tracing
from toolbus_ingress.mcp.call_handler import Relay
from toolbus_ingress.mcp.legacy import batch
from toolbus_ingress.mcp.legacy.batch import Batch
from toolbus_ingress.mcp.local_methods import SESSION, Local
from toolbus_ingress.mcp.notification_hub import Hub
from toolbus_ingress.mcp.request_target import is_relayed
from toolbus_ingress.mcp.resume import LAST_EVENT, Resumption
from toolbus_ingress.mcp.server_requests import ROOTS_CHANGED
from toolbus_ingress.protocol_versions import Request, RuleBrokenError
from toolbus_ingress.sessions.event_log_store import Shelf
from toolbus_ingress.sessions.session_store import Session, Sessions
from toolbus_ingress.sessions.sse_writer import Send

log = logging.getLogger(__name__)

_ACCEPTED = Response(202, b"")
_ENDED = Response(204, b"")
_MODERN = tuple(version.encode() for version in protocol_versions.MODERN)
_NOT_ALLOWED = Response(
    405,
    jsonrpc.error(
        405, jsonrpc.INVALID_REQUEST, "This endpoint answers POST; GET and DELETE need a session."
    ).body,
    ((b"allow", b"POST"),),
)
_ALONE = "initialize begins a session: send it alone."
_NO_METHOD = jsonrpc.error(400, jsonrpc.INVALID_REQUEST, "The request names no method.")
_NO_SESSION = jsonrpc.error(
    404, jsonrpc.INVALID_REQUEST, "This session has ended or is not yours; initialize a new one."
)


@dataclass(slots=True)
class Endpoint:
    """`/mcp` and `/mcp/<server>`."""

    service: Service
    guard: Guard
    directory: ConfigProjection
    catalogue: Catalogue
    sessions: Sessions
    relay: Relay
    local: Local
    hub: Hub
    resumption: Resumption
    shelf: Shelf
    identity: Identity
    anonymous: AnonymousAccess
    largest_body: int
    most_in_flight: int
    _in_flight: int = field(default=0)

    async def answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Response | None:
        """Answer one HTTP request; None when the answer was streamed already."""
        return await self.bounded(scope, self._answer(scope, server, receive, send))

    @property
    def crowded(self) -> bool:
        """Whether no more requests can be answered now."""
        return self._in_flight >= self.most_in_flight

    async def bounded(
        self,
        scope: MutableMapping[str, Any],
        work: Coroutine[Any, Any, Response | None],
        request_id: bytes = b"null",
    ) -> Response | None:
        """The answer some work comes to, or how it was refused; at most so many at once."""
        if self.crowded:
            work.close()
            busy = OverloadedError("Too many requests are under way; retry.")
            return jsonrpc.failure(busy, request_id)
        self._in_flight += 1
        try:
            answer = await work
        except (RefusedRequestError, RuleBrokenError) as refusal:
            return refusal.response
        except UnauthorizedError as error:
            return _unauthorized(error, self.identity.challenge(scope.get("path", "")), scope)
        except ToolbusError as error:
            answer = jsonrpc.failure(error, request_id)
        finally:
            self._in_flight -= 1
        if answer is not None and answer.status == jsonrpc.FORBIDDEN:
            return self.identity.pointed(answer, scope.get("path", ""))
        return answer

    async def _answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Response | None:
        headers = self.guard.headers(scope)
        if scope["method"] != "POST":
            if SESSION not in headers or scope["method"] not in ("GET", "DELETE"):
                return _NOT_ALLOWED
            await self.introduce(headers, server)
            caller = self.caller(headers, scope, server, scope["query_string"])
            return await self._session_itself(scope["method"], Visit(caller, headers, scope, send))
        check_post(headers, self.largest_body)
        if token_of(headers):
            await self.introduce(headers, server)
        caller = self.caller(headers, scope, server, scope["query_string"])
        body = await whole_body(receive, self.largest_body)
        return await self.dispatch(Visit(caller, headers, scope, send), body)

    async def introduce(self, headers: Headers, server: str = "") -> None:
        """Get to know who holds the access token of a request, if it carries one.

        Raises `UnauthorizedError`, also for a token that was made for another endpoint.
        """
        token = token_of(headers)
        if token and self.service.bus.connected:
            await self.identity.meet(token, self.identity.resource(server))

    def caller(
        self, headers: Headers, scope: dict[str, Any], server: str, query: bytes = b""
    ) -> Caller:
        """Return who asks for tools: the credential's holder, or where allowed an anonymous caller.

        Raises what `authenticate` raises.
        """
        if not self.anonymous.applies(headers):
            return self.authenticate(headers, scope, server, query)
        self.anonymous.check(headers, scope)
        return self._known(KEY_DIGEST, headers, scope, server, query)

    def authenticate(
        self, headers: Headers, scope: dict[str, Any], server: str, query: bytes = b""
    ) -> Caller:
        """Who holds the credential. Raises `UnauthorizedError`, `BusDownError` or a refusal."""
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        scheme = scheme.lower()
        if scheme not in SCHEMES or not secret:
            raise UnauthorizedError(
                "Send a key as 'Authorization: Bearer <key>'; 'toolbus keys create' makes one."
            )
        key_digest = key_digest_of(secret.strip().decode("latin-1"))
        return self._known(key_digest, headers, scope, server, query, scheme)

    def _known(
        self,
        key_digest: str,
        headers: Headers,
        scope: dict[str, Any],
        server: str,
        query: bytes,
        scheme: bytes = BEARER,
    ) -> Caller:
        if not self.service.bus.connected:
            raise bus_down()
        restriction = restriction_of(headers)
        found = self.catalogue.holder(key_digest, restriction)
        person = found is not None and is_person(found[0])
        if found is None or (scheme != BEARER and not person):
            raise UnauthorizedError("This key opens nothing: it is unknown, revoked or expired.")
        if server and not self.catalogue.serves(server):
            raise refused(UNKNOWN_SERVER, 404, "No such server.")
        terms = asked_terms(headers, self.catalogue.mode(found[0], query))
        holder = self.identity.held(key_digest, server, headers, scope) if person else ""
        return Caller(key_digest, *found, server, restriction, terms, holder)

    async def _session_itself(self, verb: str, visit: Visit) -> Response | None:
        """Serve GET, a session's stream, and DELETE, its end."""
        session = self.session(visit)
        if verb == "DELETE":
            self.sessions.end(session)
            return _ENDED
        if not visit.takes_events:
            raise refused("accept", 406, "The answer is text/event-stream: accept it.")
        if self.hub.full:
            raise OverloadedError("Too many streams are open; retry later.")
        last = visit.headers.get(LAST_EVENT)
        if not (last and session.resumable and await self.resumption.follow(visit, session, last)):
            await self.hub.follow_session(visit.within(session))
        return None

    def session(self, visit: Visit) -> Session:
        """The session the request names. Raises `RuleBrokenError` when it is not there."""
        session = self.sessions.find(visit.headers[SESSION], visit.caller.account)
        if session is None:
            raise RuleBrokenError(_NO_SESSION)
        return session

    def dispatch(self, visit: Visit, body: bytes) -> Awaitable[Response | None]:
        """Answer what was posted. Raises `RuleBrokenError` and `ToolbusError`, now or awaited."""
        message = parsed(body)
        if isinstance(message, list):
            return self._batch(visit, message)
        return self._message(visit, message, body)

    async def _batch(self, visit: Visit, messages: list[Any]) -> Response | None:
        if SESSION in visit.headers:
            visit = visit.within(self.session(visit))
        version = visit.headers.get(b"mcp-protocol-version", b"")
        batch.check(messages, visit.session, version)
        return await Batch(visit, messages, self.shelf).answer(self._one)

    async def _one(self, visit: Visit, message: Any) -> Response | None:
        """Answer one message of a batch, whatever it is; a notification is never answered."""
        try:
            request_id = protocol_versions.id_of(message)
        except RuleBrokenError as refusal:
            return refusal.response
        if isinstance(message, dict) and message.get("method") == "initialize":
            return jsonrpc.error(
                400, jsonrpc.INVALID_REQUEST, _ALONE, request_id=request_id or b"null"
            )
        work = self._message(visit, message, strict_json.dump(message))
        answer = await self.bounded(visit.scope, work, request_id or b"null")
        notified = not request_id and isinstance(message, dict) and "method" in message
        return None if notified else answer

    async def _message(self, visit: Visit, message: Any, body: bytes) -> Response | None:
        request_id = protocol_versions.id_of(message)
        if request_id and "method" not in message:
            return self._take_response(visit, body)
        request = protocol_versions.read(message, request_id, visit.headers)
        if (
            SESSION in visit.headers
            and request.family is ProtocolFamily.LEGACY
            and request.method != "initialize"
        ):
            visit = visit.within(self.session(visit))
        if not request.id:
            self._take_notification(visit, request)
            return _ACCEPTED
        return await self._respond(visit, request)

    async def _respond(self, visit: Visit, request: Request) -> Response | None:
        if is_relayed(request):
            return await self.relay.answer(visit, request)
        if request.method == "subscriptions/listen" and request.family is ProtocolFamily.MODERN:
            if self.hub.full:
                raise OverloadedError("Too many streams are open; retry later.")
            await self.hub.follow_subscription(visit, request)
            return None
        with tracing.local(visit, request):
            return await self.local.answer(visit, request)

    def _take_response(self, visit: Visit, body: bytes) -> Response:
        """A client's answer to a question of ours, which another replica may have asked."""
        if visit.session is not None:
            self.sessions.tell(visit.session, "response", "", body)
            return _ACCEPTED
        if SESSION not in visit.headers or visit.headers.get(b"mcp-protocol-version") in _MODERN:
            raise RuleBrokenError(_NO_METHOD)
        self.sessions.tell(self.session(visit), "response", "", body)
        return _ACCEPTED

    def _take_notification(self, visit: Visit, request: Request) -> None:
        if request.method == "notifications/cancelled" and visit.session is not None:
            about = request.params.get("requestId")
            if isinstance(about, str | int):
                self.sessions.tell(visit.session, "cancelled", strict_json.dump(about).decode())
        elif request.method == ROOTS_CHANGED and visit.session is not None:
            self.sessions.on_roots(visit.session.sid)


def parsed(body: bytes) -> Any:
    """The message in a body. Raises `RuleBrokenError` for what is no strict JSON."""
    try:
        return strict_json.parse(body)
    except strict_json.StrictJSONError as error:
        raise RuleBrokenError(
            jsonrpc.error(400, jsonrpc.PARSE_ERROR, f"Parse error: {error}.")
        ) from error


def _unauthorized(
    error: UnauthorizedError, where: bytes, scope: MutableMapping[str, Any]
) -> Response:
    sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    answer = jsonrpc.failure(error)
    headers = challenged(error, where, sent.partition(b" ")[0])
    return Response(answer.status, answer.body, headers, rejection(error))
