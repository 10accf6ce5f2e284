"""Comparison of requests by the meaning of their last user message.

The embeddings of a context are compared exactly and completely by usearch: a context has few
entries, because everything else in the request must be equal.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from toolbus_common.config import ResponseCache, SemanticCache
from toolbus_common.contracts.model_calls import CacheTerms
from toolbus_common.errors import ToolbusError
from toolbus_common.model_api.embeddings import PACKAGED, EmbeddingModel, NoModelError
from toolbus_executor.providers.cache.request_key import SimilarText
from toolbus_executor.providers.cache.store import CacheStore
from toolbus_executor.providers.exchange import Exchange

log = logging.getLogger(__name__)

MAX_COMPARED = 1024  # entries of one context; the newest ones are compared
MAX_CONTEXTS = 64  # contexts whose embeddings stay in memory
MAX_DIMENSIONS = 8192
Embed = Callable[[Exchange, str, CacheTerms, SemanticCache], Awaitable[Sequence[float] | None]]


class Compared(Struct):
    """The embedding of a request, and the entry that is similar enough; its name can be empty."""

    vector: bytes
    name: str = ""


class _Context(Struct):
    """The decrypted comparisons of the entries with one context."""

    names: tuple[str, ...] = ()
    literals: tuple[tuple[str, ...], ...] = ()
    matrix: Any = None


class Comparer:
    """Comparer of requests with the cached ones of the same context.

    `embed` returns the embedding of a declared model. The bundled model and the libraries are
    loaded at the first comparison, in a thread.
    """

    def __init__(self, store: CacheStore, embed: Embed) -> None:
        self._store = store
        self._embed = embed
        self._contexts: OrderedDict[bytes, _Context] = OrderedDict()
        self._model: EmbeddingModel | None = None
        self._loading = asyncio.Lock()
        self._fault = ""  # why the bundled model cannot be used

    def forget(self) -> None:
        """Remove all decrypted comparisons from memory, because a key was erased."""
        self._contexts.clear()

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
        assert semantic is not None  # noqa: S101 - the text exists only then
        try:
            vector = await self._vector(exchange, text.text, terms, semantic)
            if vector is None:
                return None
            name = self._most_similar(vector, text, context, cache, semantic.threshold)
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
        if semantic.embeddings:
            found = await self._embed(exchange, text, terms, semantic)
            if found is None:
                return None
        else:
            found = await asyncio.to_thread((await self._bundled()).of, text)
        import numpy  # noqa: ICN001, PLC0415 - only if requests are compared

        vector = numpy.asarray(found, dtype="float32")
        length = float(numpy.linalg.norm(vector)) if 0 < vector.size <= MAX_DIMENSIONS else 0.0
        return vector / length if 0 < length < float("inf") else None

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

    def _most_similar(
        self,
        vector: Any,
        text: SimilarText,
        context: bytes,
        cache: ResponseCache,
        threshold: float,
    ) -> str:
        """Return the name of the most similar entry; empty if none is similar enough.

        Raises:
            NoModelError: the library is not installed.

        """
        fresh = tuple(
            name
            for name in self._store.index.similar(context)[-MAX_COMPARED:]
            if self._store.fresh(name, cache.ttl) is not None
        )
        known = self._contexts.pop(context, None)
        if not fresh:
            return ""
        if known is None or known.names != fresh:
            known = self._opened(fresh, vector.size, known)
        self._contexts[context] = known
        if len(self._contexts) > MAX_CONTEXTS:
            self._contexts.popitem(last=False)
        literals = text.literals
        candidates = [at for at, each in enumerate(known.literals) if each == literals]
        if not candidates:
            return ""
        at, distance = _nearest(known.matrix[candidates], vector)
        return known.names[candidates[at]] if 1 - distance >= threshold else ""

    def _opened(self, names: tuple[str, ...], size: int, before: _Context | None) -> _Context:
        """Return the comparisons of these entries; only new ones are decrypted."""
        import numpy  # noqa: ICN001, PLC0415 - only if requests are compared

        known: dict[str, tuple[tuple[str, ...], Any]] = {}
        if before is not None and before.names and before.matrix.shape[1] == size:
            known = dict(
                zip(before.names, zip(before.literals, before.matrix, strict=True), strict=True)
            )
        opened: dict[str, tuple[tuple[str, ...], Any]] = {}
        for name in names:
            entry = self._store.index.get(name)
            found = known.get(name)
            if found is None and entry is not None:
                comparison = self._store.comparison(name, entry)
                if comparison is not None and len(comparison.vector) == 4 * size:
                    found = comparison.literals, numpy.frombuffer(comparison.vector, "float32")
            if found is not None:
                opened[name] = found
        if not opened:
            return _Context()
        literals, vectors = zip(*opened.values(), strict=True)
        return _Context(tuple(opened), literals, numpy.stack(vectors))


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
