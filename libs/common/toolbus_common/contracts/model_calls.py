"""Requests to models: calls whose server is a provider and whose tool is a model.

A model request is a `CallRequested` with one of `MODEL_METHODS`. `server` is the provider, `tool`
is the model's name at the provider, `arguments` is the body of the client's request, and `extra` is
a `ModelCall`. The response of a streamed request is sent as notifications of the method `CHUNK`,
each with a part of the event stream in the form of the client's API; the final reply is then empty.
A request whose `ModelCall` has `report` is also answered with notifications of the method `REPORT`.
"""

from msgspec import Struct
from msgspec.json import Decoder, Encoder

CHAT, RESPONSES, MESSAGES = "models/chat", "models/responses", "models/messages"
EMBEDDINGS, COUNT_TOKENS = "models/embeddings", "models/count_tokens"
MODEL_METHODS = frozenset({CHAT, RESPONSES, MESSAGES, EMBEDDINGS, COUNT_TOKENS})
CHUNK, REPORT = "models/chunk", "models/report"
# The notification before a response that the cache could have: its body is a `CacheNote`.
CACHE = "models/cache"
SEPARATOR = "/"  # between the provider and the model in the name of a model without an alias


class ModelCall(Struct, frozen=True, omit_defaults=True):
    """What ingress has read from a model request. It is the field `extra` of the call.

    `alias` is the name by which the caller requested the model; empty for `provider/model`.
    `output` is the limit of output tokens of the request, over all choices; None if the request has
    no limit. `choices` is the number of requested choices. `attempt` is the number of targets that
    were tried before. `tools` is the number of tools offered to the model. `beta` is the client's
    header `anthropic-beta`; empty for none. `sampled_by` is the server whose sampling
    request, during the call `parent_id`, caused the request; else empty. `cache` is the client's
    header `Cache-Control`, if it is `no-cache` or `no-store`; else empty. With `report`, the caller
    receives a `ModelReport` before the request is sent to the provider, and another one before the
    final reply.
    """

    alias: str = ""
    stream: bool = False
    output: int | None = None
    choices: int = 1
    attempt: int = 0
    tools: int = 0
    beta: str = ""
    report: bool = False
    sampled_by: str = ""
    cache: str = ""

    def encode(self) -> str:
        """Return the form for the field `extra`."""
        return _encode(self).decode()


class CacheTerms(Struct, frozen=True, omit_defaults=True):
    """How a request may use the cache of responses. It is the field `cache` of `CallAdmitted`.

    `scope` names the callers that share the response, such as `team:support`. `embedding` is the
    price of the embedding model, in the form of `CallAdmitted.price`; None if similar requests must
    not be compared.
    """

    scope: str
    embedding: tuple[float, ...] | None = None

    def encode(self) -> str:
        """Return the form for the field `cache`."""
        return _encode(self).decode()


class CacheNote(Struct, frozen=True, omit_defaults=True):
    """Whether a response comes from the cache: `hit`, `semantic-hit`, `miss` or `bypass`.

    `key` identifies the entry for a purge; empty for none. `age` is its age in seconds.
    """

    status: str
    key: str = ""
    age: int = 0

    def encode(self) -> bytes:
        """Return the body of the notification."""
        return _encode(self)


class ModelReport(Struct, frozen=True, omit_defaults=True):
    """The cost of a model request, in micro-dollars: an upper bound, or the charge if `is_final`.

    `input` and `output` are the tokens of the final report.
    """

    charge: int
    input: int = 0
    output: int = 0
    is_final: bool = False

    def encode(self) -> bytes:
        """Return the body of a notification."""
        return _encode(self)


class Usage(Struct, frozen=True, omit_defaults=True):
    """The tokens of one model request. `input` includes `cached` and `cache_write` tokens.

    `output` includes `reasoning` tokens. `estimated` means that the provider reported no usage, so
    that Toolbus estimated it. `cache_write` includes `cache_write_1h`, which is cached for an hour.
    `audio_input` and `image_input` are parts of the other input, and `audio_output` of the other
    output.
    """

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: bool = False
    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0


_encode = Encoder().encode
decode_model_call = Decoder(ModelCall).decode
decode_cache_terms = Decoder(CacheTerms).decode
decode_cache_note = Decoder(CacheNote).decode
decode_report = Decoder(ModelReport).decode


def is_model_method(method: str) -> bool:
    """Return whether a call with this method is a model request."""
    return method in MODEL_METHODS


def model_name(provider: str, model: str) -> str:
    """Return the name of a model without an alias."""
    return f"{provider}{SEPARATOR}{model}"
