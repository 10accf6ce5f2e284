"""HTTP+SSE, the transport of MCP 2024-11-05: messages in POSTs, every answer on one stream."""

import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from msgspec.structs import replace

from toolbus_common.errors import OverloadedError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_common.mcp import revisions
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import Headers, check_post, read_request_body
from toolbus_ingress.mcp.endpoint import Endpoint, parse_body
from toolbus_ingress.mcp.local_methods import SESSION
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import Send

log = logging.getLogger(__name__)

_OLDEST = revisions.LEGACY[-1]
_ACCEPTED = Response(202, b"")


@dataclass(slots=True)
class HttpSseTransport:
    """The handler of `/sse` and `/sse/<server>`, and of `…/messages?session=…` for messages.

    If a message is posted to a replica that does not have the session's stream, its answer is sent
    over the bus to the replica that has the stream.
    """

    endpoint: Endpoint

    async def answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Response | None:
        """Return the response to one HTTP request; None if it was streamed."""
        return await self.endpoint.run_limited(scope, self._answer(scope, server, receive, send))

    async def _answer(
        self, scope: dict[str, Any], server: str, receive: Receive, send: Send
    ) -> Response | None:
        endpoint = self.endpoint
        headers = endpoint.guard.headers(scope)
        if scope["method"] == "POST":
            check_post(headers, endpoint.largest_body)
        await endpoint.verify_token(headers, server)
        caller = endpoint.caller(headers, scope, server)
        context = RequestContext(caller, {**headers, b"accept": b"text/event-stream"}, scope, send)
        if scope["method"] == "GET":
            await self._stream(context)
            return None
        token = parse_qs(scope["query_string"].decode("latin-1")).get("session", [""])[0]
        session_headers: Headers = {**context.headers, SESSION: token.encode()}
        session = endpoint.session(replace(context, headers=session_headers))
        body = await read_request_body(receive, endpoint.largest_body)
        endpoint.service.spawn(self._answer_message(context, session, body))
        return _ACCEPTED

    async def _stream(self, context: RequestContext) -> None:
        """Start a session and serve its stream until the client disconnects."""
        if self.endpoint.notifications.full:
            raise OverloadedError("Too many streams are open. Retry later.")
        sessions = self.endpoint.sessions
        session = sessions.begin(context.caller.session_owner, _OLDEST, {})
        post_url = f"{context.scope['path']}/messages?session={session.token}"
        try:
            await self.endpoint.notifications.serve_session_stream(
                context.within(session), post_url
            )
        finally:
            sessions.end(session)

    async def _answer_message(self, context: RequestContext, session: Session, body: bytes) -> None:
        """Answer one posted message on the session's stream."""

        def write(message: bytes) -> None:
            self.endpoint.sessions.update(session, "message", "", message)

        scope: dict[str, Any] = {"headers": ()}
        context = replace(context.within(session), scope=scope, write=write)
        try:
            answer = await self.endpoint.run_limited(scope, self._dispatch(context, body))
        except Exception:
            log.exception("request.failed")
            answer = jsonrpc.failure(
                ToolbusError("Internal error. The log of the ingress service has the details.")
            )
        if answer is not None and answer.body:
            write(answer.body)

    async def _dispatch(self, context: RequestContext, body: bytes) -> Response | None:
        message = parse_body(body)
        if isinstance(message, dict) and message.get("method") == "initialize":
            params = message.get("params")
            capabilities = params.get("capabilities") if isinstance(params, dict) else None
            assert context.session is not None  # noqa: S101 - every message has a session
            self.endpoint.sessions.set_capabilities(context.session, capabilities)
        return await self.endpoint.dispatch(context, body)
