"""Partial decoding of model requests: only what routing and policy need, in one pass.

The body is passed on as the client sent it, so unknown fields reach the provider. If a name is
repeated, this decoder and the decoder in executor use the last value.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
)
from toolbus_common.errors import InvalidError

LONGEST_NAME = 512
MAX_OUTPUT, MAX_CHOICES = 1_000_000_000, 128
_NOTHING = Raw(b"")

_Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
_Output = Annotated[int, Meta(ge=0, le=MAX_OUTPUT)]
_Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]


class _Tool(Struct):
    """A tool, which is counted and not decoded."""


class _Request(Struct):
    """The fields of all requests. Fields that only identify the user are not decoded."""

    model: _Name
    stream: bool | None = None
    tools: list[_Tool] | None = None
    user: Raw = _NOTHING
    prompt_cache_key: Raw = _NOTHING

    @property
    def output(self) -> int | None:
        """The limit of output tokens of all choices together; None for no limit."""
        return None

    @property
    def choices(self) -> int:
        """The number of choices."""
        return 1

    @property
    def user_key(self) -> bytes:
        """The part of the body that names the user or the prompt's cache; empty for none."""
        return bytes(self.prompt_cache_key) or bytes(self.user)


class _Chat(_Request):
    max_tokens: _Output | None = None
    max_completion_tokens: _Output | None = None
    n: _Choices | None = None

    @property
    def output(self) -> int | None:
        # If a client sends both, the provider may apply either.
        limits = [x for x in (self.max_tokens, self.max_completion_tokens) if x is not None]
        return max(limits) * self.choices if limits else None

    @property
    def choices(self) -> int:
        return self.n or 1


class _Responses(_Request):
    max_output_tokens: _Output | None = None
    background: bool | None = None

    @property
    def output(self) -> int | None:
        return self.max_output_tokens


class _Messages(_Request):
    max_tokens: _Output | None = None
    metadata: Raw = _NOTHING

    @property
    def output(self) -> int | None:
        return self.max_tokens

    @property
    def user_key(self) -> bytes:
        return bytes(self.metadata)


class _InputOnly(_Request):
    """A request whose response has no output tokens and is never streamed."""

    @property
    def output(self) -> int | None:
        return 0


class ModelRequest(Struct, frozen=True):
    """What ingress knows of a model request.

    `output` is the limit of output tokens over all choices; None for no limit. `user_key` is the
    raw JSON that identifies the user or the prompt's cache; empty for none.
    """

    method: str
    model: str
    body: bytes
    stream: bool = False
    output: int | None = None
    choices: int = 1
    tools: int = 0
    user_key: bytes = b""


_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    CHAT: msgspec.json.Decoder(_Chat),
    RESPONSES: msgspec.json.Decoder(_Responses),
    MESSAGES: msgspec.json.Decoder(_Messages),
    EMBEDDINGS: msgspec.json.Decoder(_InputOnly),
    COUNT_TOKENS: msgspec.json.Decoder(_InputOnly),
}
_STREAMED = frozenset({CHAT, RESPONSES, MESSAGES})


class InvalidBodyError(InvalidError):
    """The body of a model request is malformed. `param` is the invalid field; else empty."""

    def __init__(self, reason: str, param: str = "") -> None:
        super().__init__(reason)
        self.param = param


def read_request(method: str, body: bytes) -> ModelRequest:
    """Decode the body of a model request in part. The caller must limit the size of the body.

    Raises:
        InvalidBodyError: the body is not a JSON object, or a field has a wrong type or value.

    """
    try:
        found = _decoders[method].decode(body)
        if not body.isascii():
            body.decode()  # also check the undecoded texts
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from error
    except UnicodeDecodeError as error:
        raise InvalidBodyError("The body is not UTF-8. Send JSON in UTF-8.") from error
    except ValueError as error:
        raise InvalidBodyError(f"The body is not JSON: {error}. Send one JSON object.") from error
    except RecursionError as error:
        raise InvalidBodyError("The body is nested too deeply. Send a flatter body.") from error
    if getattr(found, "background", False):
        raise InvalidBodyError(
            "'background' is not supported, because the usage of such a response cannot be "
            "charged. Remove it, and use a stream for a long response.",
            "background",
        )
    return ModelRequest(
        method,
        found.model,
        body,
        bool(found.stream) and method in _STREAMED,
        found.output,
        found.choices,
        len(found.tools or ()),
        found.user_key,
    )


def _wrong_field(reason: str) -> InvalidBodyError:
    """Return the error for a decoder's message, such as "Expected `str` - at `$.model`"."""
    if "missing required field `model`" in reason:
        return InvalidBodyError(
            "The body has no 'model'. Name a model; GET /v1/models lists them.", "model"
        )
    what, _, path = reason.partition(" - at `$")
    field = path.strip("`.")
    if not field:
        return InvalidBodyError(f"The body is not valid: {what}. Send one JSON object.")
    return InvalidBodyError(f"The field '{field}' is not valid: {what}.", field)
