"""HTTP+SSE, the transport of 2024-11-05: one stream for every answer, requests posted beside it."""

import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from msgspec.structs import replace

from toolbus_common.errors import OverloadedError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_ingress import protocol_versions
from toolbus_ingress.auth.request_context import Visit
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import Headers, check_post, whole_body
from toolbus_ingress.mcp.endpoint import Endpoint, parsed
from toolbus_ingress.mcp.local_methods import SESSION
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import Send

log = logging.getLogger(__name__)

_OLDEST = protocol_versions.LEGACY[-1]
_ACCEPTED = Response(202, b"")


@dataclass(slots=True)
class OldTransport:
    """`/sse` and `/sse/<server>`; messages are posted to `…/messages?session=…`.

    A message may be posted to another replica than the one that holds the stream: what answers it
    goes there over the bus.
    """

    endpoint: Endpoint

    async def answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Response | None:
        """Answer one HTTP request; None when the answer was streamed already."""
        return await self.endpoint.bounded(scope, self._answer(scope, server, receive, send))

    async def _answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Response | None:
        endpoint = self.endpoint
        headers = endpoint.guard.headers(scope)
        if scope["method"] == "POST":
            check_post(headers, endpoint.largest_body)
        await endpoint.introduce(headers, server)
        caller = endpoint.caller(headers, scope, server)
        visit = Visit(caller, {**headers, b"accept": b"text/event-stream"}, scope, send)
        if scope["method"] == "GET":
            await self._stream(visit)
            return None
        session = self._session(scope, visit)
        body = await whole_body(receive, endpoint.largest_body)
        self.endpoint.service.spawn(self._work(visit, session, body))
        return _ACCEPTED

    async def _stream(self, visit: Visit) -> None:
        if self.endpoint.hub.full:
            raise OverloadedError("Too many streams are open; retry later.")
        sessions = self.endpoint.sessions
        session = sessions.begin(visit.caller.account, _OLDEST, {})
        where = f"{visit.scope['path']}/messages?session={session.token}"
        try:
            await self.endpoint.hub.follow_session(visit.within(session), where)
        finally:
            sessions.end(session)

    def _session(self, scope: dict[str, Any], visit: Visit) -> Session:
        token = parse_qs(scope["query_string"].decode("latin-1")).get("session", [""])[0]
        headers: Headers = {**visit.headers, SESSION: token.encode()}
        return self.endpoint.session(replace(visit, headers=headers))

    async def _work(self, visit: Visit, session: Session, body: bytes) -> None:
        """Answer one posted message on the session's stream."""

        def tell(message: bytes) -> None:
            self.endpoint.sessions.tell(session, "message", "", message)

        inside: dict[str, Any] = {"headers": ()}
        visit = replace(visit.within(session), scope=inside, tell=tell)
        try:
            answer = await self.endpoint.bounded(inside, self._dispatch(visit, body))
        except Exception:
            log.exception("request.failed")
            answer = jsonrpc.failure(
                ToolbusError("Something failed inside; the log of ingress says what.")
            )
        if answer is not None and answer.body:
            tell(answer.body)

    async def _dispatch(self, visit: Visit, body: bytes) -> Response | None:
        message = parsed(body)
        if isinstance(message, dict) and message.get("method") == "initialize":
            params = message.get("params")
            declared = params.get("capabilities") if isinstance(params, dict) else None
            assert visit.session is not None  # noqa: S101 - every message here has one
            self.endpoint.sessions.declare(visit.session, declared)
        return await self.endpoint.dispatch(visit, body)
