"""The executor room: calls upstreams, and knows what they offer.

hears   CallAdmitted, per server; the bucket tb_config
says    the frames of each call's answer; CallCompleted, CallFailed; ServerConnected, ServerLost,
        BreakerOpened, BreakerClosed
owns    the buckets tb_catalogue and tb_leases; connections to upstreams and stdio processes
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from toolbus_common.contracts import ServersAsked, ServersTold
from toolbus_common.exchange import Exchange
from toolbus_common.provision import CATALOGUE, CONFIG, LEASES
from toolbus_common.room import Room
from toolbus_common.snapshot import Directory, Snapshot
from toolbus_executor.keeper import Keeper
from toolbus_executor.settings import Settings

log = logging.getLogger(__name__)


class Fleet:
    """A keeper for every declared server: a change touches only the server it is about."""

    def __init__(self, room: Room, directory: Directory) -> None:
        self._room = room
        self._directory = directory
        self._keepers: dict[str, Keeper] = {}
        self._changed = asyncio.Event()

    def told(self) -> tuple[dict[str, Any], ...]:
        """A row per server."""
        return tuple(self._keepers[name].told() for name in sorted(self._keepers))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Follow the declaration until left."""
        self._changed.set()
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            keepers = self._keepers.values()
            await asyncio.gather(*(keeper.stop(removed=False) for keeper in keepers))

    def hear(self, _snapshot: Snapshot) -> None:
        """Look at the declaration again."""
        self._changed.set()

    async def _follow(self) -> None:
        catalogue = await self._room.bucket(CATALOGUE)
        leases = await self._room.bucket(LEASES)
        while True:
            await self._changed.wait()
            self._changed.clear()
            declared = self._directory.now.declaration.servers
            for name, keeper in list(self._keepers.items()):
                if declared.get(name) != keeper.declared:
                    await self._keepers.pop(name).stop(removed=name not in declared)
            for name, server in declared.items():
                if name not in self._keepers:
                    self._keepers[name] = Keeper(name, server, self._room, catalogue, leases)


def build(exchange: Exchange) -> Room:
    """Wire the room. Nothing connects until it runs."""
    room = Room("executor", Settings(), exchange)
    directory = Directory()
    room.watches(CONFIG)(directory.hear)

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        fleet = Fleet(room, directory)
        directory.on_change.append(fleet.hear)
        room.details = lambda: {"servers": len(fleet.told())}

        @room.answers(ServersAsked)
        async def servers(_asked: ServersAsked) -> ServersTold:
            return ServersTold(servers=fleet.told())

        async with fleet.kept():
            yield

    room.needs(opened)
    return room
