"""The executor room: calls upstreams, and knows what they offer.

hears   CallAdmitted, per server, and from other executors; CallCancelled; the bucket tb_config
says    the frames of each call's answer; CallCompleted, CallFailed; ServerConnected, ServerLost,
        ServerFaulted, BreakerOpened, BreakerClosed; ServerSaid
owns    the buckets tb_catalogue and tb_leases; connections to upstreams and stdio processes
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from toolbus_common.builtin import BUILT_IN
from toolbus_common.bus import Bucket
from toolbus_common.contracts import ServersAsked, ServersTold
from toolbus_common.exchange import Exchange
from toolbus_common.provision import CATALOGUE, CONFIG, LEASES
from toolbus_common.room import Room
from toolbus_common.snapshot import Directory, Snapshot
from toolbus_executor.keeper import Keeper
from toolbus_executor.parklane import ParkLane
from toolbus_executor.runner import Runner
from toolbus_executor.settings import Settings

log = logging.getLogger(__name__)


class Fleet:
    """A keeper for every declared server: a change touches only the server it is about."""

    def __init__(self, room: Room, directory: Directory) -> None:
        self._room = room
        self._directory = directory
        self._keepers: dict[str, Keeper] = {}
        self._changed = asyncio.Event()
        self._lane = ParkLane(room.bus, room.facts.producer, self._runner)

    def __len__(self) -> int:
        return len(self._keepers)

    async def told(self) -> tuple[dict[str, Any], ...]:
        """A row per server."""
        keepers = [self._keepers[name] for name in sorted(self._keepers)]
        return tuple(await asyncio.gather(*(keeper.told() for keeper in keepers)))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Follow the declaration until left."""
        catalogue = await self._room.bucket(CATALOGUE)
        leases = await self._room.bucket(LEASES)
        self._changed.set()
        await self._lane.open(self._cancel)
        following = asyncio.create_task(self._follow(catalogue, leases))
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await self._lane.close()
            keepers = self._keepers.values()
            await asyncio.gather(*(keeper.stop(removed=False) for keeper in keepers))

    def hear(self, _snapshot: Snapshot) -> None:
        """Look at the declaration again."""
        self._changed.set()

    async def _follow(self, catalogue: Bucket, leases: Bucket) -> None:
        await self._forget_strangers(catalogue)
        while True:
            await self._changed.wait()
            self._changed.clear()
            declared = self._directory.now.declaration.servers
            leaving = [
                self._keepers.pop(name).stop(removed=name not in declared)
                for name, keeper in list(self._keepers.items())
                if declared.get(name) != keeper.declared
            ]
            await asyncio.gather(*leaving)
            for name, server in declared.items():
                if name not in self._keepers:
                    keeper = Keeper(name, server, self._room, catalogue, leases)
                    keeper.runner.forward = self._lane.forward
                    self._keepers[name] = keeper

    def _runner(self, server: str) -> Runner | None:
        keeper = self._keepers.get(server)
        return keeper.runner if keeper is not None else None

    def _cancel(self, call_id: str) -> None:
        for keeper in self._keepers.values():
            keeper.runner.cancel(call_id)

    async def _forget_strangers(self, catalogue: Bucket) -> None:
        """Take out of the catalogue what was removed while no executor ran."""
        declared = self._directory.now.declaration.servers
        try:
            async for entry in catalogue.watch():
                if entry is None:
                    return
                if entry.value is not None and entry.key not in (BUILT_IN, *declared):
                    await catalogue.delete(entry.key)
        except Exception:
            log.exception("catalogue.not_tidied")


def build(exchange: Exchange) -> Room:
    """Wire the room. Nothing connects until it runs."""
    room = Room("executor", Settings(), exchange)
    directory = Directory()
    room.watches(CONFIG)(directory.hear)

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        fleet = Fleet(room, directory)
        directory.on_change.append(fleet.hear)
        room.details = lambda: {"servers": len(fleet)}

        @room.answers(ServersAsked)
        async def servers(_asked: ServersAsked) -> ServersTold:
            return ServersTold(servers=await fleet.told())

        async with fleet.kept():
            yield

    room.needs(opened)
    return room
