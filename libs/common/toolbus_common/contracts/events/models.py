"""Events about model requests: their tokens and timing, and purges of their cache."""

from typing import ClassVar

from toolbus_common.contracts.events.base import CallEvent, Event


class ModelUsed(CallEvent):
    """A provider answered a model request, completely or in part. Executor publishes this event.

    It complements `call.completed` or `call.failed` with the same `call_id`: `server` is the
    provider and `tool` is the model. `alias` is the name that the caller used; empty for none.
    `provider_kind` is the provider's API. `charge` is the charge in micro-dollars. The token counts
    are those of `toolbus_common.contracts.model_calls.Usage`. `cached_savings` is how much less the
    cached input cost than other input, in micro-dollars. `attempt` is the number of targets
    that were tried before. `first_token_us` is the time to the first part of a streamed response,
    and `latency_us` is the whole duration, both in microseconds. `cut` means that the stream ended
    early. `tools_offered` counts the tools in the request, and `tools_suggested` counts the tool
    calls in the response. `cache` is `hit` or `semantic-hit` for a response from the cache, `miss`
    for one that the cache did not have, and empty if the cache was not used. A response from the
    cache has no tokens: `saved_tokens` are those of the stored response, and `saved` is what they
    would have cost in micro-dollars, less `charge`.
    """

    NAME: ClassVar[str] = "model.used"

    alias: str = ""
    provider_kind: str = ""
    streamed: bool = False
    charge: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    attempt: int = 0
    first_token_us: int = 0
    latency_us: int = 0
    finish_reason: str = ""
    cut: bool = False
    tools_offered: int = 0
    tools_suggested: int = 0
    cached_savings: int = 0
    cache: str = ""
    saved: int = 0
    saved_tokens: int = 0
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    audio_output_tokens: int = 0


class ModelCachePurged(Event):
    """An operator removed cached responses of models. Executor publishes this event.

    `provider`, `model` (its name at the provider), `key` (the API key of the requests) and `entry`
    selected the responses; an empty field selected all. `customer` is `default` if responses of all
    customers were selected. `removed` is the number of removed responses, and `by` is the operator.
    """

    NAME: ClassVar[str] = "cache.purged"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    by: str = ""
    provider: str = ""
    model: str = ""
    key: str = ""
    entry: str = ""
    removed: int = 0
