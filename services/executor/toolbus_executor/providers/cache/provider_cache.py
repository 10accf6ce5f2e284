"""Cache of one provider's responses: lookup before a request, and storage of its response."""

import logging
from collections.abc import Awaitable, Callable
from math import ceil
from time import monotonic, time
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from toolbus_common.config import Provider, ResponseCache
from toolbus_common.contracts import Notification
from toolbus_common.contracts.model_calls import (
    CACHE,
    EMBEDDINGS,
    CacheNote,
    decode_cache_terms,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.privacy.person_key import PersonKey
from toolbus_executor.model_metrics import record_cache_use
from toolbus_executor.providers.cache.comparison import Compared, Comparer
from toolbus_executor.providers.cache.flights import Flights
from toolbus_executor.providers.cache.records import (
    Comparison,
    Entry,
    entry_id,
    entry_name,
    keyed,
    owner_name,
)
from toolbus_executor.providers.cache.request_key import (
    RequestKey,
    fingerprint_of,
    request_key,
)
from toolbus_executor.providers.cache.store import CacheStore, NewEntry
from toolbus_executor.providers.charging import charge_of_usage
from toolbus_executor.providers.exchange import Exchange

log = logging.getLogger(__name__)

HIT, SEMANTIC_HIT, MISS, BYPASS = "hit", "semantic-hit", "miss", "bypass"
NO_CACHE, NO_STORE = "no-cache", "no-store"
# A response that ended for another reason is incomplete, or was refused.
_COMPLETE = frozenset(
    {
        *("stop", "tool_calls", "function_call"),  # chat completions
        "completed",  # the responses API
        *("end_turn", "stop_sequence", "tool_use"),  # the messages API and Bedrock
        "STOP",  # Gemini and Vertex AI, also for tool calls
    }
)
Send = Callable[[Exchange], Awaitable[bytes]]


class _Embeddings(Struct):
    """The required members of a response with embeddings. Some servers send errors as HTTP 200."""

    data: Annotated[list[Raw], Meta(min_length=1)]
    error: None = None


_embeddings = msgspec.json.Decoder(_Embeddings).decode


class _Lookup(Struct):
    """A request that may be served from the cache. `seen` is the revision at its beginning."""

    name: str
    key: RequestKey
    customer: PersonKey
    seen: int
    compared: Compared | None = None


class ProviderCache:
    """The cache of one provider. All replicas and providers share its store."""

    def __init__(
        self,
        name: str,
        provider: Provider,
        cache: ResponseCache,
        store: CacheStore,
        comparer: Comparer,
    ) -> None:
        self._name = name
        self._cache = cache
        self._store = store
        self._comparer = comparer
        self._fingerprint = fingerprint_of(provider)
        self._flights = Flights()
        self._timeout = provider.timeout
        store.start()

    async def run(self, exchange: Exchange, send: Send) -> bytes:
        """Return the body of a cached response, or that of `send`, which is then stored.

        A failure of the cache is not an error: the request is then sent to the provider. A request
        that equals one in progress waits for its response, at most the provider's timeout. If the
        request in progress is cancelled, one waiting request is sent in its place. If it ends
        without a cached response or the timeout passes, all waiting requests are sent.
        """
        exchange.describe()
        lookup = await self._lookup(exchange)
        if lookup is None:
            return await self._sent(exchange, send, CacheNote(BYPASS))
        if exchange.model_call.cache == NO_CACHE:
            return await self._stored(exchange, send, lookup)
        body = await self._replayed(exchange, lookup)
        until = monotonic() + min(self._timeout, exchange.call.deadline - time())
        while body is None:
            if not self._flights.has(lookup.name):
                with self._flights.first(lookup.name):
                    return await self._stored(exchange, send, lookup)
            takes_over = await self._flights.ended(lookup.name, until - monotonic())
            body = await self._replayed(exchange, lookup)
            if body is None and not takes_over:
                return await self._stored(exchange, send, lookup)
        return body

    async def _stored(self, exchange: Exchange, send: Send, lookup: _Lookup) -> bytes:
        """Return the response of the provider, which is then stored."""
        exchange.begin_copy()
        body = await self._sent(exchange, send, CacheNote(MISS, entry_id(lookup.name)))
        self._write(exchange, lookup, body)
        return body

    async def _lookup(self, exchange: Exchange) -> _Lookup | None:
        """Return how to look up a request; None if it must not be cached."""
        call, store = exchange.call, self._store
        if exchange.model_call.cache == NO_STORE or not await store.is_ready():
            return None
        try:
            terms = decode_cache_terms(call.cache)
            semantic = self._cache.semantic if terms.embedding is not None else None
            key = request_key(call, exchange.model_call, terms.scope, self._fingerprint, semantic)
            if key is None:
                return None
            customer = await store.customer_key(call.customer)
        except (ToolbusError, msgspec.MsgspecError) as error:
            log.warning("model_cache.not_read", extra={"reason": str(error)})
            return None
        name = entry_name(call.customer, customer, key.digest)
        lookup = _Lookup(name, key, customer, store.index.revision)
        if key.similar is not None and store.fresh(name, self._cache.ttl) is None:
            lookup.compared = await self._comparer.compare(
                exchange, key.similar, keyed(customer, key.similar.context), terms, self._cache
            )
        return lookup

    async def _replayed(self, exchange: Exchange, lookup: _Lookup) -> bytes | None:
        """Return the body of a cached response; None if there is none."""
        ttl = self._cache.ttl
        found, name, status = await self._store.read(lookup.name, ttl), lookup.name, HIT
        if found is None and lookup.compared is not None and lookup.compared.name:
            name, status = lookup.compared.name, SEMANTIC_HIT
            found = await self._store.read(name, ttl)
        if found is None:
            return None
        note = CacheNote(status, entry_id(name), int(found.age))
        await self._announce(exchange, note)
        price = charge_of_usage(found.response.usage, exchange.call.price)
        charge = ceil(price * self._cache.hit_charge)
        return await exchange.replay(found.response, charge, price - charge)

    async def _sent(self, exchange: Exchange, send: Send, note: CacheNote) -> bytes:
        await self._announce(exchange, note)
        return await send(exchange)

    async def _announce(self, exchange: Exchange, note: CacheNote) -> None:
        exchange.cache_note = note
        record_cache_use(self._name, note.status)
        await exchange.context.send(Notification(CACHE, note.encode()))

    def _write(self, exchange: Exchange, lookup: _Lookup, body: bytes) -> None:
        """Store the response of the provider, if it is complete and successful."""
        response = exchange.copied(body)
        if response is None:
            return
        call = exchange.call
        if call.method == EMBEDDINGS:
            if not _has_embeddings(body):
                return
        elif response.finish_reason not in _COMPLETE:
            return
        comparison, context = None, b""
        if lookup.compared is not None and lookup.key.similar is not None and not response.tools:
            comparison = Comparison(lookup.compared.vector)
            context = keyed(lookup.customer, lookup.key.similar.context)
        entry = Entry(
            customer=call.customer,
            provider=call.server,
            model=call.tool,
            key=call.key,
            owner="",
            at=time(),
            size=0,
            seen=lookup.seen,
            context=context,
        )
        self._store.write(
            NewEntry(lookup.name, entry, owner_name(call), response, comparison, self._cache)
        )


def _has_embeddings(body: bytes) -> bool:
    try:
        _embeddings(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True
