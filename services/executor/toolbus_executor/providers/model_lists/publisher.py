"""Publication of the models that a provider lists. It is outside of the path of requests."""

import asyncio
import logging
import random
from contextlib import suppress
from hashlib import sha256

from toolbus_common.config import Provider
from toolbus_common.contracts import Listing, ServerState
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import CATALOGUE
from toolbus_common.service.service import Service
from toolbus_executor.providers.endpoints.paths import next_page
from toolbus_executor.providers.http import ProviderClient
from toolbus_executor.providers.model_lists.names import MAX_MODELS, page_in, shown_names
from toolbus_executor.resilience.health_probe import PROBE_SECONDS

log = logging.getLogger(__name__)

REFRESH_SECONDS = 300.0
FIRST_SECONDS = 1.0  # doubled by each failure
MAX_PAGES = 20  # of one list


class ModelListPublisher:
    """The entry of one provider in the catalogue: the names of its models.

    Only a provider without configured `models` has an entry. If its list cannot be read, the entry
    is unchanged, unless it is that of another address. A failure does not count for the circuit
    breaker.
    """

    def __init__(self, name: str, provider: Provider, service: Service) -> None:
        self.name = name
        self.names: tuple[str, ...] = ()  # as this executor has read them
        self._provider = provider
        self._service = service
        self._address = sha256(f"{provider.kind} {provider.base_url}".encode()).hexdigest()[:32]
        self._problem = ""

    async def follow(self, client: ProviderClient | None) -> None:
        """Read and publish the list repeatedly, until the task is cancelled."""
        pause, is_checked = FIRST_SECONDS, False
        while True:
            try:
                if not is_checked:
                    await self._remove_other()
                    is_checked = True
                if client is None or self._provider.models:
                    return
                await self._publish(await self._read(client))
                self._problem, pause = "", REFRESH_SECONDS
            except Exception as error:  # noqa: BLE001 - read again later
                self._note(error)
                pause = min(REFRESH_SECONDS, pause * 2)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311

    async def remove(self) -> None:
        """Delete the entry. If the bus is down, the next executor deletes it."""
        with suppress(Exception):
            bucket, entry = await self._entry()
            if entry is not None:
                await bucket.delete(self.name)

    async def _read(self, client: ProviderClient) -> tuple[str, ...]:
        names: set[str] = set()
        async with asyncio.timeout(PROBE_SECONDS):  # a probe of most providers is the same request
            for first in client.lists:
                url, pages = first, 0
                while url and pages < MAX_PAGES and len(names) < MAX_MODELS:
                    body = await client.model_list(url)
                    # A long list takes too long for the event loop.
                    page = await asyncio.to_thread(page_in, self._provider, body)
                    names |= page.names
                    url, pages = next_page(self._provider.kind, first, page.next_token), pages + 1
            return await asyncio.to_thread(shown_names, names, client.secrets)

    async def _publish(self, names: tuple[str, ...]) -> None:
        """Write the entry if it differs from the published one."""
        self.names = names
        bucket, before = await self._entry()
        listing = Listing(
            server=self.name, state=ServerState.READY, declared=self._address, models=names
        )
        if before != listing:
            await bucket.put(self.name, listing.encode())

    async def _remove_other(self) -> None:
        """Delete an entry of another address, or of a time without configured `models`."""
        _, entry = await self._entry()
        if entry is not None and (self._provider.models or entry.declared != self._address):
            await self.remove()

    async def _entry(self) -> tuple[Bucket, Listing | None]:
        """Return the bucket and the entry; None if there is none, or it is that of a server."""
        bucket = await self._service.bucket(CATALOGUE)
        current = await bucket.get(self.name)
        listing = Listing.decode(current.value) if current and current.value else None
        return bucket, listing if listing is not None and listing.models is not None else None

    def _note(self, error: Exception) -> None:
        """Log a failure, unless it is the same as before."""
        problem = error.reason if isinstance(error, ToolbusError) else type(error).__name__
        if problem != self._problem:
            self._problem = problem
            log.info("provider.models_not_listed", extra={"server": self.name, "reason": problem})
