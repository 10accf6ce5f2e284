"""Metrics of the tokens of model requests."""

from functools import cache
from typing import NamedTuple

from toolbus_common.config import MICRO
from toolbus_common.contracts import ModelUsed
from toolbus_common.contracts.model_calls import MODEL_METHODS
from toolbus_common.observability.call_metrics import CallCount, DurationHistogram, call_count
from toolbus_common.observability.metrics import (
    MODEL_CACHE_REQUESTS,
    MODEL_CACHE_SAVED_DOLLARS,
    MODEL_CACHE_SAVED_TOKENS,
    MODEL_FIRST_TOKEN_SECONDS,
    MODEL_TOKENS,
)

_APIS = {method: method.partition("/")[2] for method in MODEL_METHODS}


class _Metrics(NamedTuple):
    """The metrics of one API of one provider."""

    input: CallCount
    cached_input: CallCount
    output: CallCount
    first_token: DurationHistogram


def record_model_use(used: ModelUsed) -> None:
    """Count the tokens and the time to the first token of a model request.

    The labels are the provider and the API. The model is not a label: with a grant such as
    `provider/*`, the caller chooses the model's name.
    """
    metrics = _metrics(used.server, _APIS.get(used.method, "other"))
    metrics.input.count += max(used.input_tokens - used.cached_tokens, 0)
    metrics.cached_input.count += used.cached_tokens
    metrics.output.count += used.output_tokens
    if used.saved_tokens:
        MODEL_CACHE_SAVED_TOKENS.labels(used.server).inc(used.saved_tokens)
        MODEL_CACHE_SAVED_DOLLARS.labels(used.server).inc(used.saved / MICRO)
    if used.first_token_us:
        metrics.first_token.observe(used.first_token_us / 1e6)


def record_cache_use(provider: str, status: str) -> None:
    """Count a request by its use of the cache of responses."""
    MODEL_CACHE_REQUESTS.labels(provider, status).inc()


@cache
def _metrics(provider: str, api: str) -> _Metrics:
    tokens = {
        direction: call_count(MODEL_TOKENS.labels(provider, api, direction))
        for direction in ("input", "cached_input", "output")
    }
    return _Metrics(**tokens, first_token=MODEL_FIRST_TOKEN_SECONDS.labels(provider))
