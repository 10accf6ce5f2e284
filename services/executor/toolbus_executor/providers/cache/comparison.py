"""Comparison of requests by the meaning of their last user message.

usearch compares a request with all embeddings of its context, without an approximate index. A
context has few entries, because the requests must have equal wording and be equal in everything
else. Embeddings are decrypted for each comparison, so none stays in memory.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from toolbus_common.config import ResponseCache, SemanticCache
from toolbus_common.contracts.model_calls import CacheTerms
from toolbus_common.errors import ToolbusError
from toolbus_common.model_api.embeddings import PACKAGED, EmbeddingModel, NoModelError
from toolbus_executor.providers.cache.request_key import SimilarText
from toolbus_executor.providers.cache.store import CacheStore, SealedComparison
from toolbus_executor.providers.exchange import Exchange

log = logging.getLogger(__name__)

MAX_COMPARED = 16  # entries of one context; the newest ones are compared
MAX_DIMENSIONS = 8192
Embed = Callable[[Exchange, str, CacheTerms, SemanticCache], Awaitable[Sequence[float] | None]]


class Compared(Struct):
    """The embedding of a request, and the entry that is similar enough; its name can be empty."""

    vector: bytes
    name: str = ""


class Comparer:
    """Comparer of requests with the cached ones of the same context.

    `embed` returns the embedding of a declared model. The bundled model and the libraries are
    loaded at the first comparison, in a thread.
    """

    def __init__(self, store: CacheStore, embed: Embed) -> None:
        self._store = store
        self._embed = embed
        self._model: EmbeddingModel | None = None
        self._loading = asyncio.Lock()
        self._fault = ""  # why the bundled model cannot be used

    async def compare(
        self,
        exchange: Exchange,
        text: SimilarText,
        context: bytes,
        terms: CacheTerms,
        cache: ResponseCache,
    ) -> Compared | None:
        """Return the embedding of a text, and the most similar entry. None without an embedding.

        A failure is not an error, because the request can be sent to the provider.
        """
        semantic = cache.semantic
        assert semantic is not None  # noqa: S101 - only then `text` exists
        try:
            vector = await self._vector(exchange, text.text, terms, semantic)
            if vector is None:
                return None
            name = await self._most_similar(vector, context, cache, semantic.threshold)
            return Compared(vector.tobytes(), name)
        except (NoModelError, ToolbusError, TimeoutError) as error:
            log.warning("model_cache.not_compared", extra={"reason": str(error)})
        except Exception:
            log.exception("model_cache.internal_error")
        return None

    async def _vector(
        self, exchange: Exchange, text: str, terms: CacheTerms, semantic: SemanticCache
    ) -> Any:
        """Return the unit vector of a text; None if it has no direction."""
        found: Sequence[float] | None
        if semantic.embeddings:
            found = await self._embed(exchange, text, terms, semantic)
        else:
            found = await asyncio.to_thread((await self._bundled()).of, text)
        return None if found is None else await asyncio.to_thread(_unit, found)

    async def _bundled(self) -> EmbeddingModel:
        """Return the bundled model. Raises `NoModelError`."""
        async with self._loading:
            if self._fault:
                raise NoModelError(self._fault)
            if self._model is None:
                try:
                    self._model = await asyncio.to_thread(EmbeddingModel, PACKAGED)
                except NoModelError as error:
                    self._fault = str(error)
                    raise
            return self._model

    async def _most_similar(
        self, vector: Any, context: bytes, cache: ResponseCache, threshold: float
    ) -> str:
        """Return the name of the most similar entry; empty if none is similar enough.

        Raises:
            NoModelError: the library is not installed.

        """
        store = self._store
        sealed = [
            found
            for name in store.index.similar(context, MAX_COMPARED)
            if store.fresh(name, cache.ttl) is not None
            and (found := store.sealed_comparison(name)) is not None
        ]
        if not sealed:
            return ""
        return await asyncio.to_thread(_search, sealed, vector, threshold)


def _unit(found: Sequence[float]) -> Any:
    """Return the unit vector; None if it has no direction or too many dimensions."""
    import numpy  # noqa: ICN001, PLC0415 - only if requests are compared

    vector = numpy.asarray(found, dtype="float32")
    length = float(numpy.linalg.norm(vector)) if 0 < vector.size <= MAX_DIMENSIONS else 0.0
    return vector / length if 0 < length < float("inf") else None


def _search(sealed: Sequence[SealedComparison], vector: Any, threshold: float) -> str:
    """Return the name of the most similar entry; empty if none is similar enough."""
    import numpy  # noqa: ICN001, PLC0415 - only if requests are compared

    rows = [
        (each.name, numpy.frombuffer(comparison.vector, "float32"))
        for each in sealed
        if (comparison := each.opened()) is not None and len(comparison.vector) == 4 * vector.size
    ]
    if not rows:
        return ""
    at, distance = _nearest(numpy.stack([row for _, row in rows]), vector)
    return rows[at][0] if 1 - distance >= threshold else ""


def _nearest(matrix: Any, vector: Any) -> tuple[int, float]:
    """Return the row with the smallest cosine distance to a vector, and this distance."""
    try:
        from usearch.index import search  # noqa: PLC0415 - the extra `cache` brings it
    except ImportError as error:
        raise NoModelError(
            "The semantic cache needs the package usearch: pip install 'toolbus[cache]'."
        ) from error
    found = search(matrix, vector, 1, "cos", exact=True)
    return int(found.keys[0]), float(found.distances[0])
