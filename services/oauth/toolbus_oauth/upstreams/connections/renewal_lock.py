"""Turns: of several who want to renew the same, one does, in this process and among replicas."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time

from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.records import Renewing

LEASE_SECONDS = 30.0  # longer than any exchange takes
PAUSE_SECONDS = 0.1


@dataclass(slots=True)
class Turns:
    """In this process one waits for the other; of several processes one holds the lease."""

    brief: Store
    me: str = field(default_factory=lambda: secrets.token_hex(8))
    _taken: dict[str, asyncio.Lock] = field(default_factory=dict)

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """While nobody else is at it."""
        turn = self._taken.setdefault(key, asyncio.Lock())
        try:
            async with turn, self._leased(key):
                yield
        finally:
            if not turn.locked():
                self._taken.pop(key, None)

    @asynccontextmanager
    async def _leased(self, key: str) -> AsyncIterator[None]:
        mine = None
        while mine is None:
            held, revision = await self.brief.seen(Renewing, key)
            if held is None or held.ends < time():
                wanted = Renewing(self.me, time() + LEASE_SECONDS)
                if await self.brief.swap(key, wanted, revision):
                    mine = wanted
                    break
            await asyncio.sleep(PAUSE_SECONDS)
        try:
            yield
        finally:
            held, revision = await self.brief.seen(Renewing, key)
            if held == mine:
                await self.brief.swap(key, Renewing(self.me, 0.0), revision)
