"""Lease of a server that only one executor may run, in a bucket whose entries expire."""

import asyncio
import logging

from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import LEASE_SECONDS

log = logging.getLogger(__name__)

RENEW_SECONDS = LEASE_SECONDS * 0.3


class Lease:
    """Lease of one name among the executor replicas.

    The bucket drops an entry that was not renewed for `LEASE_SECONDS`.
    """

    def __init__(self, bucket: Bucket, name: str, owner: str) -> None:
        self._bucket = bucket
        self._name = name
        self._owner = owner.encode()
        self._revision = 0
        self._denied = 0

    @property
    def elsewhere(self) -> bool:
        """Whether another running replica probably holds the lease.

        False until this replica has tried to acquire the lease for longer than `LEASE_SECONDS`.
        Before that, the entry may belong to a replica that no longer runs.
        """
        return self._denied * RENEW_SECONDS > LEASE_SECONDS

    async def acquire(self) -> None:
        """Wait until this replica holds the lease."""
        while True:
            try:
                revision = await self._bucket.swap(self._name, self._owner, 0)
            except Exception as error:  # noqa: BLE001 - any bus error is retried
                log.debug("lease.not_acquired", extra={"reason": str(error)})
                revision = None
            if revision is not None:
                self._revision, self._denied = revision, 0
                return
            self._denied += 1
            await asyncio.sleep(RENEW_SECONDS)

    async def keep(self) -> None:
        """Renew the lease regularly. Return when the lease is lost."""
        failures = 0
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                revision = await self._bucket.swap(self._name, self._owner, self._revision)
            except Exception as error:  # noqa: BLE001 - a short bus outage does not lose the lease
                failures += 1
                log.debug("lease.not_renewed", extra={"reason": str(error)})
                if failures * RENEW_SECONDS >= LEASE_SECONDS:
                    return
                continue
            if revision is None:
                return
            self._revision, failures = revision, 0

    async def release(self) -> None:
        """Release the lease immediately, if this replica holds it."""
        try:
            if await self._bucket.swap(self._name, self._owner, self._revision) is not None:
                await self._bucket.delete(self._name)
        except Exception as error:  # noqa: BLE001 - the lease expires
            log.debug("lease.not_released", extra={"reason": str(error)})
