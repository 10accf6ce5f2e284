"""Claims in a bucket. A claim records which executor holds a session."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from weakref import WeakValueDictionary

from toolbus_common.concurrency import end
from toolbus_common.errors import BusDownError, ToolbusError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import CLAIM_SECONDS, LEASE_SECONDS

log = logging.getLogger(__name__)

RENEW_SECONDS = LEASE_SECONDS * 0.3
MAX_KNOWN = 20_000  # known sessions of other executors


class SessionClaims:
    """The claims of one executor, and the claims of other executors that it knows.

    A claim is an entry with the id of the executor that holds the session, written with
    compare-and-set. Each executor renews one lease while it runs. The lease expires 2 s after the
    last renewal. Then any executor that needs the session can take over the claim. A session
    therefore costs only one entry.
    """

    def __init__(self, claims: Bucket, leases: Bucket, instance: str) -> None:
        self.instance = instance
        self.on_taken: Callable[[str], None] = lambda _key: None
        self._claims = claims
        self._leases = leases
        self._mine: dict[str, int] = {}
        self._others: OrderedDict[str, str] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._renewed = 0.0
        self._renewing: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()

    def known(self, key: str) -> str:
        """Return the executor that holds a session; empty if this executor does not know it."""
        if key in self._mine:
            return self.instance if monotonic() - self._renewed < LEASE_SECONDS else ""
        return self._others.get(key, "")

    async def holder(self, key: str) -> str:
        """Return the executor that holds a session.

        If no running executor holds the session, this executor claims it.

        Raises:
            BusDownError: the holder cannot be determined now.

        """
        found = self.known(key)
        if found:
            return found
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            return self.known(key) or await self._acquired(key)

    def forget(self, key: str) -> None:
        """Discard a known holder that is wrong, so that the claim is read again."""
        self._others.pop(key, None)

    async def release(self, key: str, unless: Callable[[], bool]) -> None:
        """Release the claim on a session, unless `unless` returns true."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if unless():
                return
            revision = self._mine.pop(key, None)
            if revision is None:
                return
            with suppress(Exception):  # on an error, the claim is taken over or expires
                if await self._claims.swap(key, self._value, revision) is not None:
                    await self._claims.delete(key)

    async def close(self) -> None:
        """Release all claims and the lease."""
        if self._renewing is not None:
            await end(self._renewing)
        await asyncio.gather(*(self.release(key, lambda: False) for key in tuple(self._mine)))
        if self._renewing is not None:
            with suppress(Exception):  # on an error, the lease expires
                await self._leases.delete(self._lease(self.instance))

    @property
    def _value(self) -> bytes:
        return self.instance.encode()

    @staticmethod
    def _lease(instance: str) -> str:
        return f"executor.{instance}"

    async def _acquired(self, key: str) -> str:
        """Read a claim, and acquire it if no running executor holds it. Return the holder."""
        await self._ensure_lease()
        while True:
            entry = await self._claims.get(key)
            owner = entry.value.decode() if entry is not None and entry.value else ""
            if owner and owner != self.instance and await self._lives(owner):
                self._lose(key)
                self._others[key] = owner
                if len(self._others) > MAX_KNOWN:
                    self._others.popitem(last=False)
                return owner
            if owner and owner != self.instance:
                self._lose(key)
            last = entry.revision if owner and entry is not None else 0
            revision = await self._claims.swap(key, self._value, last)
            if revision is not None:
                self._mine[key] = revision
                self._others.pop(key, None)
                return self.instance

    def _lose(self, key: str) -> None:
        """Report a session that another executor took over after this executor's lease expired."""
        if self._mine.pop(key, None) is not None:
            log.warning("session.taken_over")
            self.on_taken(key)

    async def _lives(self, instance: str) -> bool:
        return await self._leases.get(self._lease(instance)) is not None

    # -- lease -------------------------------------------------------------------------------

    async def _ensure_lease(self) -> None:
        """Acquire the lease before the first claim, and renew it from then on."""
        if monotonic() - self._renewed < LEASE_SECONDS:
            return
        async with self._beginning:
            if monotonic() - self._renewed >= LEASE_SECONDS:
                await self._renew()
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._keep_lease())

    async def _renew(self) -> None:
        began = monotonic()
        try:
            await self._leases.put(self._lease(self.instance), self._value)
        except Exception as error:
            raise BusDownError(
                f"The lease of this executor could not be renewed: {error}"
            ) from error
        self._renewed = began

    async def _keep_lease(self) -> None:
        claims_renewed = monotonic()
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            gap = monotonic() - self._renewed >= LEASE_SECONDS
            try:
                await self._renew()
                if gap or monotonic() - claims_renewed > CLAIM_SECONDS / 4:
                    claims_renewed = monotonic()
                    await self._renew_claims()
            except ToolbusError as error:
                log.debug("session_claims.not_renewed", extra={"reason": str(error)})

    async def _renew_claims(self) -> None:
        """Write all claims again. A claim that another executor has taken over is lost."""
        for key in tuple(self._mine):
            lock = self._locks.setdefault(key, asyncio.Lock())
            async with lock:
                if key in self._mine:
                    await self._acquired(key)
