"""Requests of servers to a client session outside any call, sent on the session's own stream."""

import asyncio
from contextlib import suppress

import msgspec

from toolbus_common.contracts import ClientMessage, ServerNotification
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.service.service import Service
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.mcp.legacy.client_requests import (
    RESPONSE_SECONDS,
    PendingClientRequests,
    client_request,
)
from toolbus_ingress.mcp.notification_hub import Listener, NotificationHub
from toolbus_ingress.sessions.session_store import Session

ROOTS_CHANGED = "notifications/roots/list_changed"


class ServerRequests:
    """Forwards servers' requests to clients, and clients' messages outside calls to executors."""

    def __init__(
        self,
        service: Service,
        client_requests: PendingClientRequests,
        notifications: NotificationHub,
    ) -> None:
        self._service = service
        self._client_requests = client_requests
        self._notifications = notifications

    def forward(self, request: ServerNotification) -> None:
        """Send a server's request to the client, if its session has a stream in this replica."""
        listener = self._notifications.stream_of(request.session, request.principal_id)
        if listener is not None:
            self._service.spawn(self._forward(listener, request))

    def publish(self, sid: str, what: str, about: str = "", body: bytes = b"") -> None:
        """Publish a session's message to the executors that have connections for the session."""
        self._service.spawn(self._publish(sid, what, about, body))

    def end_session(self, sid: str) -> None:
        """Publish that a client session ended, and cancel the requests to its client."""
        self._client_requests.cancel(sid, b"")
        self.publish(sid, "ended")

    async def _forward(self, listener: Listener, request: ServerNotification) -> None:
        session = listener.context.session
        assert session is not None  # noqa: S101 - the listener was found by its session
        await self._publish(request.session, "taken", request.request_id)
        member = await self._response_member(listener, session, request)
        await self._publish(request.session, "answered", request.request_id, member)

    async def _response_member(
        self, listener: Listener, session: Session, request: ServerNotification
    ) -> bytes:
        """Return the raw `result` or `error` member of the client's response."""
        input_request = {"method": request.method, "params": msgspec.json.decode(request.params)}
        async with self._client_requests.open(request.session, b"") as (number, response):
            try:
                listener.event_log.put(client_request(number, input_request, session))
                async with asyncio.timeout(RESPONSE_SECONDS):
                    message = await response
            except InvalidError as error:
                return _error(jsonrpc.METHOD_NOT_FOUND, error.reason)
            except TimeoutError:
                return _error(
                    jsonrpc.INTERNAL_ERROR,
                    f"The client did not respond within {RESPONSE_SECONDS:g} s.",
                )
        if message is None:
            return _error(jsonrpc.INTERNAL_ERROR, "The client's session has ended.")
        if "error" in message:
            return b'"error":' + msgspec.json.encode(message["error"])
        return b'"result":' + msgspec.json.encode(message.get("result"))

    async def _publish(self, sid: str, what: str, about: str = "", body: bytes = b"") -> None:
        message = ClientMessage(session=sid, what=what, about=about, body=body)
        with suppress(ToolbusError):  # without the bus, the server's request times out
            await self._service.bus.publish(message.subject, message.encode())


def _error(code: int, message: str) -> bytes:
    return b'"error":' + msgspec.json.encode({"code": code, "message": message})
