"""Lock for renewals, within this process and among replicas."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time

from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.records import RenewalLease

LEASE_SECONDS = 30.0  # longer than any token request takes
PAUSE_SECONDS = 0.1


@dataclass(slots=True)
class RenewalLock:
    """Mutual exclusion by key: an asyncio lock in this process, a lease among processes."""

    brief: Store
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Wait for the lock of a key; release it at exit."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock, self._leased(key):
                yield
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    @asynccontextmanager
    async def _leased(self, key: str) -> AsyncIterator[None]:
        lease = None
        while lease is None:
            current, revision = await self.brief.get_with_revision(RenewalLease, key)
            if current is None or current.ends < time():
                requested = RenewalLease(self.owner, time() + LEASE_SECONDS)
                if await self.brief.swap(key, requested, revision):
                    lease = requested
                    break
            await asyncio.sleep(PAUSE_SECONDS)
        try:
            yield
        finally:
            current, revision = await self.brief.get_with_revision(RenewalLease, key)
            if current == lease:
                await self.brief.swap(key, RenewalLease(self.owner, 0.0), revision)
