"""The cache of model responses in the executor: its parts, and the queries of operators."""

import heapq
import secrets
from time import time

from toolbus_common.config import Provider
from toolbus_common.contracts import (
    CachedResponse,
    CachedResponsesQuery,
    CachedResponsesReply,
    CacheTotals,
    ModelCachePurged,
    PurgeCacheReply,
    PurgeCacheRequest,
)
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import InvalidError
from toolbus_common.nats.object_store import Objects
from toolbus_common.nats.topology import MODEL_CACHE, MODEL_RESPONSES
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.service.service import Service
from toolbus_executor.providers.cache.comparison import Comparer, Embed
from toolbus_executor.providers.cache.provider_cache import ProviderCache
from toolbus_executor.providers.cache.records import Purge, entry_id
from toolbus_executor.providers.cache.store import CacheStore


class ModelCache:
    """The cache of the responses of all providers."""

    def __init__(self, service: Service, people: PersonKeys) -> None:
        self._events = service.events
        self._store = CacheStore(
            people,
            lambda: service.bucket(MODEL_CACHE),
            lambda: Objects.opened(service.bus, MODEL_RESPONSES),
        )
        self._comparer: Comparer | None = None

    def of(self, name: str, provider: Provider, embed: Embed) -> ProviderCache | None:
        """Return the cache of a provider; None if it has none."""
        if provider.cache is None:
            return None
        self._comparer = self._comparer or Comparer(self._store, embed)
        return ProviderCache(name, provider, provider.cache, self._store, self._comparer)

    async def close(self) -> None:
        """Finish the writes, and stop."""
        await self._store.close()

    async def purge(self, request: PurgeCacheRequest) -> PurgeCacheReply:
        """Remove entries, and publish an event about the removal. Raises `ToolbusError`."""
        selected = Purge(
            request.customer, request.provider, request.model, request.key, request.entry
        )
        if selected == Purge() and not request.everything:
            raise InvalidError(
                "The purge selects no entries: name a customer, provider, model, key or entry, or "
                "set 'everything'."
            )
        removed = await self._store.purge(selected)
        self._events.publish(
            ModelCachePurged(
                id=f"{secrets.token_hex(10)}.purged",
                at=time(),
                customer=request.customer or DEFAULT_CUSTOMER,
                by=request.by,
                provider=request.provider,
                model=request.model,
                key=request.key,
                entry=request.entry,
                removed=removed,
            )
        )
        return PurgeCacheReply(removed=removed)

    async def show(self, query: CachedResponsesQuery) -> CachedResponsesReply:
        """Return the newest selected entries, and the totals of all. Raises `ToolbusError`."""
        await self._store.wait_until_ready()
        index = self._store.index
        selected = Purge(query.customer, query.provider, query.model, query.key, query.entry)
        names = index.select(selected)
        chosen = [(name, entry) for name in names if (entry := index.get(name)) is not None]
        found = heapq.nlargest(query.limit, chosen, key=lambda each: each[1].at)
        return CachedResponsesReply(
            responses=tuple(
                CachedResponse(
                    entry=entry_id(name), customer=entry.customer, provider=entry.provider,
                    model=entry.model, key=entry.key, at=entry.at, bytes=entry.size,
                    semantic=bool(entry.context),
                )
                for name, entry in found
            ),
            totals=tuple(
                CacheTotals(customer=customer, provider=provider, entries=count, bytes=size)
                for (customer, provider), (count, size) in sorted(index.totals().items())
                if query.customer in ("", customer) and query.provider in ("", provider)
            ),
            more=len(names) > len(found),
        )  # fmt: skip
