"""Model providers, and the aliases that route requests to their models."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.access.levels import Content
from toolbus_common.config.base import ConfigModel, Name, Region, with_tuples
from toolbus_common.config.models.response_cache import ResponseCache
from toolbus_common.config.servers.endpoints import http_url
from toolbus_common.config.servers.server import Server
from toolbus_common.config.servers.tools import LONGEST_CALL

Kind = Literal["openai", "anthropic", "gemini", "vertex", "bedrock"]
Api = Literal["chat", "responses", "messages", "embeddings"]
OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"
GEMINI = "https://generativelanguage.googleapis.com/v1beta"
_URLS = {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI}
_MULTI_REGIONS = ("us", "eu")  # of Vertex AI
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,62}")
_LOCATION = re.compile(r"[a-z][a-z0-9-]{0,31}")
# The credentials of a pair of keys of AWS; the third is optional.
_PAIR, _TOKEN = frozenset({"access_key", "secret_key"}), "session_token"
KEY = "key"  # the name of a provider's API key if it has only one

# A model without an alias is named provider/model, so an alias contains no slash.
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
ModelName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")]


class Provider(ConfigModel):
    """A provider of models.

    `kind` is the API that it serves: `openai` (any OpenAI-compatible API at `url`), `anthropic`,
    `gemini` (the Gemini API), `vertex` (Vertex AI of a `project` at a `location`) or `bedrock`
    (Amazon Bedrock in a `region`).
    `key` is its API key; `credentials` are several API keys by name, which share the requests
    according to `weights`. Both can be references such as `${env:NAME}`. A key of `vertex` is that
    of a service account in Google's JSON form. `bedrock` has the `key` of its API, or the
    credentials `access_key`, `secret_key` and optionally `session_token`. With `ambient`, `vertex`
    and `bedrock` use the credentials of the executor's machine instead. `headers` are sent with
    each request.
    `models` are the names of its models, for the list of models; if empty, it is asked for them.
    `apis` are the APIs of an OpenAI-compatible provider; requests to other APIs are translated.
    `max_output` is the limit of
    output tokens of a request without a limit, if the model has a price. `max_input` is the
    maximum of input tokens of a request. With `unpriced`, models without a price are permitted and
    cost nothing.
    `timeout` is the longest time in seconds without a part of a streamed response, and
    `max_total_timeout` is the longest time of a request. `concurrency` limits
    the concurrent requests. A health probe is sent after `probe` idle seconds; 0 disables probes.
    `cache` stores responses and returns them for equal requests; without it, none is stored.
    `guards` are names of guards that apply to all requests to this provider.
    `region` and `labels` are words that a target or a level can require. `proxy`, `ca`,
    `certificate` and `certificate_key` have the meaning of a server's `proxy`, `ca`, `certificate`
    and `key`.
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
    cache: ResponseCache | None = None
    region: str = Field(default="", max_length=64)
    labels: tuple[Name, ...] = ()
    guards: tuple[Name, ...] = Field(default=(), max_length=64)
    project: str = Field(default="", max_length=64)
    location: str = Field(default="", max_length=32)
    ambient: bool = False
    proxy: str = ""
    ca: str = ""
    certificate: str = ""
    certificate_key: str = ""
    content: Content | None = None
    result_content: Content | None = None

    @model_validator(mode="before")
    @classmethod
    def _takes_one_key(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        fields = with_tuples(fields)
        if KEY not in fields:
            return fields
        if fields.get("credentials"):
            raise ValueError("has 'key' and 'credentials'; put all keys in 'credentials'")
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
                raise ValueError(f"'weights' names the key '{name}', which is not in 'credentials'")
        if self.kind != "openai" and self.apis:
            raise ValueError("'apis' applies only to providers of kind 'openai'; remove it")
        if self.certificate_key and not self.certificate:
            raise ValueError("has 'certificate_key' without 'certificate'; set both")
        return self

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        """Report all mistakes about the kind at once."""
        if problems := [*self._wrong_places(), *self._wrong_credentials()]:
            raise ValueError("; ".join(problems))
        return self

    def _wrong_places(self) -> Iterator[str]:
        for name, form in (("project", _PROJECT), ("location", _LOCATION)):
            value = getattr(self, name)
            if self.kind != "vertex" and value:
                yield f"'{name}' applies only to providers of kind 'vertex'; remove it"
            elif self.kind == "vertex" and not form.fullmatch(value):
                example = "my-project" if name == "project" else "europe-west1 or global"
                yield f"needs a {name} of Google Cloud, such as {example}"
        if self.kind == "vertex" and "?" in self.url:
            yield "needs a 'url' without a query, because the project and location follow it"
        if self.kind == "bedrock" and not _LOCATION.fullmatch(self.region):
            yield "needs a region of AWS, such as eu-central-1"

    def _wrong_credentials(self) -> Iterator[str]:
        names = set(self.credentials)
        if "" in names:
            yield "'credentials' has a key without a name; name it"
        if self.ambient and self.kind not in ("vertex", "bedrock"):
            yield "'ambient' applies only to providers of kind 'vertex' and 'bedrock'; remove it"
        elif self.ambient and names:
            yield "has 'ambient' and 'credentials'; remove one of them"
        elif self.kind == "gemini" and not names and not self.url:
            yield "needs a key of the Gemini API"
        elif self.kind == "vertex" and not names and not self.ambient:
            yield "needs the key of a service account as 'key', or 'ambient: true'"
        elif self.kind == "bedrock" and not self.ambient and not names:
            yield "needs 'key', 'ambient: true', or 'credentials: {access_key, secret_key}'"
        pair = names & (_PAIR | {_TOKEN})
        if self.kind == "bedrock" and pair:
            if missing := sorted(_PAIR - names):
                yield f"'credentials' needs {' and '.join(missing)} too"
            if names - pair or self.weights:
                yield "a pair of keys permits no other 'credentials' and no 'weights'; remove them"

    @property
    def base_url(self) -> str:
        """The URL to which the paths of the API are appended, such as `/chat/completions`."""
        if self.kind == "bedrock":
            return self.url or f"https://bedrock-runtime.{self.region}.amazonaws.com"
        if self.kind == "vertex":
            place = f"/projects/{self.project}/locations/{self.location}"
            return (self.url or f"https://{self._vertex_host}/v1") + place
        return self.url or _URLS[self.kind]

    @property
    def _vertex_host(self) -> str:
        if self.location == "global":
            return "aiplatform.googleapis.com"
        if self.location in _MULTI_REGIONS:
            return f"aiplatform.{self.location}.rep.googleapis.com"
        return f"{self.location}-aiplatform.googleapis.com"

    @property
    def served_apis(self) -> tuple[str, ...]:
        """The clients' APIs that the provider itself serves."""
        if self.kind != "openai":
            return ("messages",) if self.kind == "anthropic" else ()
        default = ("chat", "responses", "embeddings")
        return self.apis or (default if self.base_url == OPENAI else ("chat", "embeddings"))

    @property
    def endpoint(self) -> Server:
        """The endpoint in the form of a server, for the dialer and the egress rules."""
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
    order. `model` is the name at the provider. A target with `region` or `labels` is used only if
    its provider has this region and all of these labels.
    """

    provider: Name
    model: ModelName
    weight: int | None = Field(default=None, ge=1, le=100)
    region: Region | None = None
    labels: tuple[Name, ...] = Field(default=(), max_length=64)

    def admits(self, provider: Provider) -> bool:
        """Return whether the provider has the region and the labels that the target requires."""
        right_region = self.region is None or self.region == provider.region
        return right_region and set(self.labels) <= set(provider.labels)


class ModelPrice(ConfigModel):
    """The price of a model in dollars per million tokens; `request` is in dollars per request.

    Without `cached_input` and `cache_write`, such tokens cost as much as other input. Without
    `cache_write_1h`, tokens that are cached for an hour cost as much as `cache_write`. Without
    `reasoning`, such tokens cost as much as other output. Without `audio_input`, `image_input` and
    `audio_output`, such tokens cost as much as text.
    """

    input: float = Field(default=0, ge=0, le=1_000_000)
    output: float = Field(default=0, ge=0, le=1_000_000)
    cached_input: float | None = Field(default=None, ge=0, le=1_000_000)
    cache_write: float | None = Field(default=None, ge=0, le=1_000_000)
    cache_write_1h: float | None = Field(default=None, ge=0, le=1_000_000)
    reasoning: float | None = Field(default=None, ge=0, le=1_000_000)
    audio_input: float | None = Field(default=None, ge=0, le=1_000_000)
    image_input: float | None = Field(default=None, ge=0, le=1_000_000)
    audio_output: float | None = Field(default=None, ge=0, le=1_000_000)
    request: float = Field(default=0, ge=0, le=1_000_000)
