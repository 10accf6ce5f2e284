"""The ledger's epochs, kept on the bus: what tells our counters from an emptied Redis."""

from toolbus_common.bus import Bucket


class BusEpochs:
    """Epochs in the bucket `tb_ledger`, one entry per paying customer."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def known(self, scope: str) -> str | None:
        """The scope's epoch, or None before its first use."""
        entry = await self._bucket.get(f"epoch.{scope}")
        return entry.value.decode() if entry is not None and entry.value else None

    async def begin(self, scope: str, epoch: str) -> str:
        """Keep an epoch unless another replica kept one first; the one that is kept."""
        await self._bucket.swap(f"epoch.{scope}", epoch.encode(), 0)
        return await self.known(scope) or epoch
