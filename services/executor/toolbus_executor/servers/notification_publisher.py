"""Tells everybody what a server says that belongs to no call."""

from collections.abc import Collection
from contextlib import suppress

import msgspec

from toolbus_common.contracts import ServerNotification
from toolbus_common.errors import ToolbusError
from toolbus_common.service.service import Service
from toolbus_executor.upstreams.subscriptions import Watched

UPDATED = "notifications/resources/updated"


class Announcements:
    """Of one server. That a list changed is told when it was listed anew, not before.

    `watched` are the resources that the server was asked to watch for everybody.
    """

    def __init__(self, server: str, service: Service, watched: Watched) -> None:
        self._server = server
        self._watched = watched
        self._service = service
        self._changed: dict[tuple[str, str, str], ServerNotification] = {}

    def hear(self, method: str, params: bytes) -> None:
        """Take what the server said to everybody."""
        self.tell("", "", method, params, self._watched.names)

    def tell(
        self,
        principal_id: str,
        session: str,
        method: str,
        params: bytes,
        watched: Collection[str] = (),
        asked: str = "",
    ) -> None:
        """Take what the server said to, or asked of, a principal or one of its client sessions.

        `watched` are the resources that it was asked to watch there.
        """
        said = ServerNotification(
            server=self._server,
            method=method,
            principal_id=principal_id,
            session=session,
            unasked=method == UPDATED and _uri_of(params) not in watched,
            asked=asked,
            params=params,
        )
        if method.endswith("/list_changed"):
            self._changed[method, principal_id, session] = said
        else:
            self._service.spawn(self._say(said))

    async def say_changed(self) -> None:
        """Tell that a list changed even where it reads as before: its server said so."""
        said, self._changed = self._changed, {}
        for each in said.values():
            await self._say(each)

    async def _say(self, said: ServerNotification) -> None:
        with suppress(ToolbusError):  # the bus is away, and so is whoever wanted to hear
            await self._service.bus.publish(said.subject, said.encode())


def _uri_of(params: bytes) -> str:
    try:
        uri = msgspec.json.decode(params, type=dict[str, msgspec.Raw]).get("uri", b"")
        return msgspec.json.decode(uri, type=str)
    except msgspec.DecodeError:
        return ""
