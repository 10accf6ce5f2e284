"""Ownership of a server that may live in one place only: a lease in a bucket that forgets."""

import asyncio
import logging

from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import LEASE_SECONDS

log = logging.getLogger(__name__)

RENEW_SECONDS = LEASE_SECONDS * 0.3


class Lease:
    """One name among the executor replicas. The bucket drops an entry nobody renews for 2 s."""

    def __init__(self, bucket: Bucket, name: str, owner: str) -> None:
        self._bucket = bucket
        self._name = name
        self._owner = owner.encode()
        self._revision = 0
        self._refused = 0

    @property
    def elsewhere(self) -> bool:
        """Whether another replica holds it, and has for longer than a dead one could."""
        return self._refused * RENEW_SECONDS > LEASE_SECONDS

    async def acquire(self) -> None:
        """Wait until it is ours."""
        while True:
            try:
                revision = await self._bucket.swap(self._name, self._owner, 0)
            except Exception as error:  # noqa: BLE001 - whatever the bus says, try again
                log.debug("lease.not_asked", extra={"reason": str(error)})
                revision = None
            if revision is not None:
                self._revision, self._refused = revision, 0
                return
            self._refused += 1
            await asyncio.sleep(RENEW_SECONDS)

    async def keep(self) -> None:
        """Renew it; returns when it is lost."""
        failures = 0
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                revision = await self._bucket.swap(self._name, self._owner, self._revision)
            except Exception as error:  # noqa: BLE001 - a bus that is away for a moment is no loss
                failures += 1
                log.debug("lease.not_renewed", extra={"reason": str(error)})
                if failures * RENEW_SECONDS >= LEASE_SECONDS:
                    return
                continue
            if revision is None:
                return
            self._revision, failures = revision, 0

    async def release(self) -> None:
        """Let another replica have it at once, if it is still ours to give."""
        try:
            if await self._bucket.swap(self._name, self._owner, self._revision) is not None:
                await self._bucket.delete(self._name)
        except Exception as error:  # noqa: BLE001 - it expires by itself
            log.debug("lease.not_released", extra={"reason": str(error)})
