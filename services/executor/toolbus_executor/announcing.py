"""Tells everybody what a server says that belongs to no call."""

from contextlib import suppress

from toolbus_common.contracts import ServerSaid
from toolbus_common.errors import ToolbusError
from toolbus_common.room import Room


class Announcements:
    """Of one server. That a list changed is told when it was listed anew, not before."""

    def __init__(self, server: str, room: Room) -> None:
        self._server = server
        self._room = room
        self._changed: dict[tuple[str, str, str], ServerSaid] = {}

    def hear(self, method: str, params: bytes) -> None:
        """Take what the server said to everybody."""
        self.tell("", "", method, params)

    def tell(
        self, principal: str, session: str, method: str, params: bytes, asked: str = ""
    ) -> None:
        """Take what the server said to, or asked of, a principal or one of its sessions."""
        said = ServerSaid(
            server=self._server, method=method, principal=principal, session=session, asked=asked,
            params=params,
        )  # fmt: skip
        if method.endswith("/list_changed"):
            self._changed[method, principal, session] = said
        else:
            self._room.spawn(self._say(said))

    async def say_changed(self) -> None:
        """Tell that a list changed even where it reads as before: its server said so."""
        said, self._changed = self._changed, {}
        for each in said.values():
            await self._say(each)

    async def _say(self, said: ServerSaid) -> None:
        with suppress(ToolbusError):  # the bus is away, and so is whoever wanted to hear
            await self._room.bus.publish(said.subject, said.encode())
