"""Model providers, and the aliases that route requests to their models."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.access.levels import Content
from toolbus_common.config.base import ConfigModel, Name
from toolbus_common.config.servers.endpoints import http_url
from toolbus_common.config.servers.server import Server
from toolbus_common.config.servers.tools import LONGEST_CALL

Kind = Literal["openai", "anthropic"]
Api = Literal["chat", "responses", "messages", "embeddings"]
OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"
_URLS = {"openai": OPENAI, "anthropic": ANTHROPIC}
KEY = "key"  # the name of a provider's API key if it has only one

# A model without an alias is named provider/model, so an alias contains no slash.
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
ModelName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")]


class Provider(ConfigModel):
    """A provider of models.

    `kind` is the API that it serves: `openai` (any OpenAI-compatible API at `url`) or `anthropic`.
    `key` is its API key; `credentials` are several API keys by name, which share the requests
    according to `weights`. Both can be references such as `${env:NAME}`. `headers` are sent with
    each request.
    `models` are the names of its models, for the list of models. `apis` are the APIs of an
    OpenAI-compatible provider; requests to other APIs are translated. `max_output` is the limit of
    output tokens of a request without a limit, if the model has a price. `max_input` is the most
    input tokens that a request can have. With `unpriced`, models without a
    price are permitted and cost nothing.
    `timeout` is the longest time in seconds without a part of a streamed response, and
    `max_total_timeout` is the longest time of a request. `concurrency` limits
    the concurrent requests. A health probe is sent after `probe` idle seconds; 0 disables probes.
    `region` and `labels` are words that a target can require. `proxy`, `ca`, `certificate` and
    `certificate_key` are those of a server (`proxy`, `ca`, `certificate`, `key`).
    """

    kind: Kind
    url: str = ""
    credentials: dict[str, str] = Field(default_factory=dict, repr=False)
    weights: dict[str, Annotated[int, Field(ge=1, le=100)]] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    models: tuple[ModelName, ...] = Field(default=(), max_length=1000)
    apis: tuple[Api, ...] = ()
    max_output: int = Field(default=8192, ge=1, le=1_000_000)
    max_input: int = Field(default=1_000_000, ge=1, le=100_000_000)
    unpriced: bool = False
    timeout: float = Field(default=120.0, gt=0, le=3600)
    max_total_timeout: float = Field(default=600.0, gt=0, le=LONGEST_CALL)
    concurrency: int = Field(default=64, ge=1, le=4096)
    probe: float = Field(default=0.0, ge=0, le=3600)
    region: str = Field(default="", max_length=64)
    labels: tuple[Name, ...] = ()
    proxy: str = ""
    ca: str = ""
    certificate: str = ""
    certificate_key: str = ""
    content: Content | None = None
    result_content: Content | None = None

    @model_validator(mode="before")
    @classmethod
    def _takes_one_key(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or KEY not in fields:
            return fields
        if fields.get("credentials"):
            raise ValueError("has key and credentials; put all keys in credentials")
        rest = {name: value for name, value in fields.items() if name != KEY}
        return rest | ({"credentials": {KEY: fields[KEY]}} if fields[KEY] else {})

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return http_url(url).rstrip("/")

    @model_validator(mode="after")
    def _has_keys_for_weights(self) -> Self:
        for name in self.weights:
            if name not in self.credentials:
                raise ValueError(f"weights names the key '{name}', which is not in credentials")
        if self.kind == "anthropic" and self.apis:
            raise ValueError("apis applies only to providers of kind openai; remove it")
        if self.certificate_key and not self.certificate:
            raise ValueError("has a certificate_key without a certificate; set both")
        return self

    @property
    def base_url(self) -> str:
        """The URL to which the paths of the API are appended, such as `/chat/completions`."""
        return self.url or _URLS[self.kind]

    @property
    def served_apis(self) -> tuple[str, ...]:
        """The APIs that the provider itself serves."""
        if self.kind == "anthropic":
            return ("messages",)
        default = ("chat", "responses", "embeddings")
        return self.apis or (default if self.base_url == OPENAI else ("chat", "embeddings"))

    @property
    def endpoint(self) -> Server:
        """The endpoint as a server: what the dialer and the egress rules know about it."""
        return Server(
            url=self.base_url,
            proxy=self.proxy,
            ca=self.ca,
            certificate=self.certificate,
            key=self.certificate_key,
        )


class ModelTarget(ConfigModel):
    """A model that an alias stands for.

    Targets with a `weight` share the requests. Targets without a weight are fallbacks, in their
    order. `model` is the name at the provider.
    """

    provider: Name
    model: ModelName
    weight: int | None = Field(default=None, ge=1, le=100)


class ModelPrice(ConfigModel):
    """The price of a model in dollars per million tokens; `request` is in dollars per request.

    Without `cached_input` and `cache_write`, such tokens cost as much as other input. Without
    `reasoning`, such tokens cost as much as other output.
    """

    input: float = Field(default=0, ge=0, le=1_000_000)
    output: float = Field(default=0, ge=0, le=1_000_000)
    cached_input: float | None = Field(default=None, ge=0, le=1_000_000)
    cache_write: float | None = Field(default=None, ge=0, le=1_000_000)
    reasoning: float | None = Field(default=None, ge=0, le=1_000_000)
    request: float = Field(default=0, ge=0, le=1_000_000)
