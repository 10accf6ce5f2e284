"""Cache of model responses, as configured for a provider."""

from typing import Annotated, Literal

from pydantic import Field

from toolbus_common.config.base import ConfigModel, Patterns

Scope = Literal["key", "user", "team", "customer"]
LONGEST_TTL = 7 * 86_400  # seconds
MAX_CACHED = 1 << 20  # bytes of one response


class SemanticCache(ConfigModel):
    """Responses to similar requests: only the form of the last user message may differ.

    `threshold` is the lowest cosine similarity of two texts that share a response. `embeddings` is
    the model `provider/model` that compares them; empty for the bundled model, which runs in the
    executor. `max_temperature` excludes requests with a higher temperature. With `tools`, requests
    that offer tools can be compared too; responses with tool calls are never shared.
    """

    threshold: float = Field(default=0.95, ge=0.5, le=1)
    embeddings: str = Field(default="", max_length=400, pattern=r"^$|^[^/\s]+/\S+$")
    max_temperature: float = Field(default=1.0, ge=0, le=2)
    tools: bool = False


class ResponseCache(ConfigModel):
    """The cache of a provider's responses.

    `ttl` is the lifetime of a response in seconds. `scope` is the widest group of callers that
    share a response; `cache_scope` of a level can narrow it. `models` are patterns of the models
    whose responses are cached. `hit_charge` is the part of the saved amount that a response from
    the cache costs. `max_entries` and `max_bytes` are limits for one customer; the oldest responses
    are removed first. `semantic` enables the comparison of similar requests.
    """

    ttl: float = Field(default=3600.0, ge=1, le=LONGEST_TTL)
    scope: Scope = "customer"
    models: Patterns = ("*",)
    hit_charge: float = Field(default=0.0, ge=0, le=1)
    max_entries: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    max_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 64 << 20
    semantic: SemanticCache | None = None
