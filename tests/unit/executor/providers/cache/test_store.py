"""Store of cached responses: purges, and charges of embeddings without a result."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from harness.services.call_runner import admitted
from toolbus_common.config import Provider, SemanticCache
from toolbus_common.contracts.model_calls import CHAT, CacheTerms
from toolbus_common.errors import CallCancelledError
from toolbus_common.nats.kv_bucket import Change
from toolbus_executor.providers.cache.embedding_requests import EmbeddingRequests
from toolbus_executor.providers.cache.records import Entry, Purge, encode
from toolbus_executor.providers.cache.store import CacheStore
from toolbus_executor.providers.exchange import Exchange

NAME = "e.acme.a"
ENTRY = Entry("acme", "p", "m", "bot", "~", 9e12, 10, 1)
PRICE = (2.0, 2.0, 2.0, 5.0, 5.0, 3.0)


class SlowBus:
    """A bucket with one entry, and its object store. A deletion ends when it is released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.deleted: list[str] = []

    async def put(self, _key: str, _value: bytes) -> int:
        return 5

    async def delete(self, key: str) -> None:
        await self.released.wait()
        self.deleted.append(key)

    async def watch(self) -> AsyncIterator[Change | None]:
        yield Change(NAME, encode(ENTRY), 1)
        yield None
        await self.released.wait()
        await asyncio.Event().wait()


def store_on(bus: Any) -> CacheStore:
    """Return a store whose bucket and objects are `bus`."""

    async def opened() -> Any:
        return bus

    return CacheStore(cast("Any", None), opened, opened)


async def test_the_first_request_after_the_start_waits_for_the_index() -> None:
    opened, bus = asyncio.Event(), SlowBus()

    async def open_bus() -> Any:
        await opened.wait()
        return bus

    store = CacheStore(cast("Any", None), open_bus, open_bus)
    store.start()
    first = asyncio.ensure_future(store.is_ready())
    await asyncio.sleep(0)
    assert not first.done()
    opened.set()
    assert await first
    assert store.fresh(NAME, 60) is not None
    await store.close()


async def test_a_purge_does_not_wait_until_the_content_is_deleted() -> None:
    bus = SlowBus()
    store = store_on(bus)
    assert await store.purge(Purge()) == 1
    assert (store.fresh(NAME, 60), bus.deleted) == (None, [])
    bus.released.set()
    await store.close()
    assert bus.deleted == [NAME, NAME]


async def test_a_purge_also_hides_a_response_that_is_being_stored() -> None:
    store = store_on(SlowBus())
    store._writing[NAME] = ENTRY, cast("Any", None)
    assert store.fresh(NAME, 60) is ENTRY
    store.index.purge(2, Purge(provider="p"))
    assert store.fresh(NAME, 60) is None


@pytest.mark.parametrize(
    ("failure", "was_sent", "charge"),
    [
        (asyncio.CancelledError(), True, 3 + 2 * 2),
        (CallCancelledError("cancelled"), True, 3 + 2 * 2),
        (RuntimeError("bug"), True, 3 + 2 * 2),
        (asyncio.CancelledError(), False, 0),
    ],
)
async def test_an_embedding_of_unknown_outcome_costs_its_bound(
    failure: BaseException, charge: int, *, was_sent: bool
) -> None:
    provider = Provider(kind="openai", url="http://e/v1")

    class Failed:
        """A target whose request fails after it was sent."""

        name = "e"

        def __init__(self) -> None:
            self.provider = provider

        async def in_slot(self, exchange: Exchange) -> bytes:
            if was_sent:
                exchange._note_written()
            raise failure

        def publish_usage(self, *_: Any, **__: Any) -> Any:
            raise AssertionError

    call = admitted("m", server="p", method=CHAT)
    exchange = Exchange(provider, "p", call, cast("Any", None))
    requests = EmbeddingRequests(lambda _: Failed())
    terms = CacheTerms("customer:acme", PRICE)
    with pytest.raises(type(failure)):
        await requests.embed(exchange, "12345678", terms, SemanticCache(embeddings="e/m"))
    assert exchange.added_charge == charge
