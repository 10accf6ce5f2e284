"""Embeddings of a declared model, for the semantic cache: a request within another request."""

from collections.abc import Callable, Sequence
from math import ceil
from time import perf_counter, time
from typing import Protocol

import msgspec
from msgspec import Struct

from toolbus_common.config import Provider, SemanticCache
from toolbus_common.contracts import ModelUsed
from toolbus_common.contracts.model_calls import EMBEDDINGS, SEPARATOR, CacheTerms, Usage
from toolbus_common.errors import OutcomeUnknownError, ToolbusError
from toolbus_executor.providers.charging import charge_of_usage
from toolbus_executor.providers.exchange import Exchange
from toolbus_executor.providers.usage import BYTES_PER_TOKEN

SECONDS = 10.0  # afterwards the request is sent without a comparison


class _Item(Struct):
    embedding: list[float]


class _Embeddings(Struct):
    data: list[_Item]


_decode = msgspec.json.Decoder(_Embeddings).decode
_encode = msgspec.json.Encoder().encode
# The provider may have processed a request that was interrupted, for example by its caller.
_UNKNOWN = OutcomeUnknownError("The request for an embedding was interrupted.")


class Target(Protocol):
    """The handler of a provider, as it is used for embeddings."""

    name: str
    provider: Provider

    async def in_slot(self, exchange: Exchange) -> bytes:
        """Wait for a concurrency slot, send the request and return the body of the reply."""
        ...

    def publish_usage(
        self, exchange: Exchange, began: float, took: float, *, cut: bool
    ) -> ModelUsed:
        """Publish the event about the tokens of a request."""
        ...


class EmbeddingRequests:
    """Requests for embeddings. `target_of` returns the handler of a provider."""

    def __init__(self, target_of: Callable[[str], Target | None]) -> None:
        self._target_of = target_of

    async def embed(
        self, exchange: Exchange, text: str, terms: CacheTerms, semantic: SemanticCache
    ) -> Sequence[float] | None:
        """Return the embedding of a text; None if there is none.

        Its charge is added to that of the exchange. Raises `ToolbusError`.
        """
        provider, _, model = semantic.embeddings.partition(SEPARATOR)
        target, call = self._target_of(provider), exchange.call
        if target is None or terms.embedding is None:
            return None
        update = {
            "call_id": f"{call.call_id}.embedding",
            "parent_id": call.call_id,
            "server": provider,
            "tool": model,
            "method": EMBEDDINGS,
            "deadline": min(call.deadline, time() + SECONDS),
            "extra": "",
            "charge": _bound(text, terms.embedding),
            "reserved": False,
            "price": terms.embedding,
            "cache": "",
            "arguments": _encode({"model": model, "input": text}),
        }
        request = Exchange(
            target.provider, provider, call.model_copy(update=update), exchange.context
        )
        began = perf_counter()
        try:
            body = await target.in_slot(request)
        except BaseException as raised:
            error = raised if isinstance(raised, ToolbusError) else _UNKNOWN
            exchange.added_charge += request.charge_of(error)
            request.end_span(None, error.code)
            raise
        exchange.added_charge += request.charge
        used = target.publish_usage(request, began, perf_counter() - began, cut=False)
        request.end_span(used)
        try:
            return _decode(body).data[0].embedding
        except (msgspec.MsgspecError, ValueError, RecursionError, IndexError):
            return None


def _bound(text: str, price: tuple[float, ...]) -> int:
    """Return the charge of an embedding with an unknown outcome: at most the reserved amount."""
    return charge_of_usage(Usage(input=ceil(len(text) / BYTES_PER_TOKEN)), price)
