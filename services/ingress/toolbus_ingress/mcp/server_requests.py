"""Requests of servers to one client session outside any call: sent on the session's own stream."""

import asyncio
from contextlib import suppress

import msgspec

from toolbus_common.contracts import ClientMessage, ServerNotification
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.service.service import Service
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.mcp.legacy.client_requests import PATIENCE, Questions, question
from toolbus_ingress.mcp.notification_hub import Hub, Listener
from toolbus_ingress.sessions.session_store import Session

ROOTS_CHANGED = "notifications/roots/list_changed"


class OutsideRequests:
    """Puts such requests to clients, and tells executors what clients say outside calls."""

    def __init__(self, service: Service, questions: Questions, hub: Hub) -> None:
        self._service = service
        self._questions = questions
        self._hub = hub

    def hear(self, said: ServerNotification) -> None:
        """Put a server's request to the client, if its session has a stream in this replica."""
        listener = self._hub.stream_of(said.session, said.principal_id)
        if listener is not None:
            self._service.spawn(self._put(listener, said))

    def tell(self, sid: str, what: str, about: str = "", body: bytes = b"") -> None:
        """Publish what a client session says, for executors with connections that belong to it."""
        self._service.spawn(self._publish(sid, what, about, body))

    def end(self, sid: str) -> None:
        """Tell executors that a client session ended; it answers nothing any more."""
        self._questions.give_up(sid, b"")
        self.tell(sid, "ended")

    async def _put(self, listener: Listener, said: ServerNotification) -> None:
        session = listener.visit.session
        assert session is not None  # noqa: S101 - it was found by its session
        await self._publish(said.session, "taken", said.asked)
        member = await self._answered(listener, session, said)
        await self._publish(said.session, "answered", said.asked, member)

    async def _answered(
        self, listener: Listener, session: Session, said: ServerNotification
    ) -> bytes:
        """The raw member of the client's answer, or of the error that there is none."""
        asked = {"method": said.method, "params": msgspec.json.decode(said.params)}
        async with self._questions.asking(said.session, b"") as (number, answer):
            try:
                listener.mail.put(question(number, asked, session))
                async with asyncio.timeout(PATIENCE):
                    told = await answer
            except InvalidError as error:
                return _error(jsonrpc.METHOD_NOT_FOUND, error.reason)
            except TimeoutError:
                return _error(
                    jsonrpc.INTERNAL_ERROR, f"The client did not answer within {PATIENCE:g} s."
                )
        if told is None:
            return _error(jsonrpc.INTERNAL_ERROR, "The client's session has ended.")
        if "error" in told:
            return b'"error":' + msgspec.json.encode(told["error"])
        return b'"result":' + msgspec.json.encode(told.get("result"))

    async def _publish(self, sid: str, what: str, about: str = "", body: bytes = b"") -> None:
        said = ClientMessage(session=sid, what=what, about=about, body=body)
        with suppress(ToolbusError):  # the bus is away: whoever waits is answered in time
            await self._service.bus.publish(said.subject, said.encode())


def _error(code: int, message: str) -> bytes:
    return b'"error":' + msgspec.json.encode({"code": code, "message": message})
