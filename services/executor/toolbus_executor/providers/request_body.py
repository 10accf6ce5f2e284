"""Bodies of requests to providers: the client's body with another model (no I/O)."""

from collections.abc import Collection

import msgspec

from toolbus_common.contracts.model_calls import CHAT, COUNT_TOKENS, MESSAGES, RESPONSES
from toolbus_common.errors import InvalidError
from toolbus_common.model_api.output_limit import chat_limit_field

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_TRUE = msgspec.Raw(b"true")
_VERTEX_VERSION = msgspec.Raw(b'"vertex-2023-10-16"')
_NULL, _ZERO = b"null", (b"0", b"-0")  # some providers of OpenAI's APIs treat 0 as no limit
# Members that decide what is served, and so what it costs. Some providers ignore the letter case.
GOVERNED = frozenset(
    {
        "model", "models", "route", "fallbacks", "stream", "stream_options", "include_usage", "n",
        "max_tokens", "max_completion_tokens", "max_output_tokens", "background", "service_tier",
        "n_predict", "n_cmpl", "speed", "inference_geo",
    }
)  # fmt: skip
_OTHER_MODELS = frozenset({"models", "route", "fallbacks"})
# Of llama.cpp, which prefers them to `max_tokens` and `n`, by which the budget is reserved.
_OTHER_LIMITS = {"n_predict": "max_tokens", "n_cmpl": "n"}
_PRICED_AS_USUAL = {  # other values have another price
    "service_tier": ("auto", "default", "flex", "standard_only"),
    "speed": ("standard",),
    "inference_geo": ("global",),
}
_LIMITS = {
    CHAT: ("max_tokens", "max_completion_tokens"),
    RESPONSES: ("max_output_tokens",),
    MESSAGES: ("max_tokens",),
}
# Limits of other APIs, by which nothing is reserved. llama.cpp serves all APIs as chats.
_FOREIGN_LIMITS = {
    RESPONSES: ("max_tokens", "max_completion_tokens", "n"),
    MESSAGES: ("max_completion_tokens", "n"),
}


def limit_field(method: str, served: Collection[str]) -> str:
    """Return the member for the limit of output tokens in a request of this method.

    `served` are the methods that the provider serves.
    """
    if method in (RESPONSES, MESSAGES):
        return _LIMITS[method][0]
    return chat_limit_field(serves_responses=RESPONSES in served)


def rewritten(
    body: bytes, model: str, method: str, *, streamed: bool, limit: tuple[str, int] | None = None
) -> tuple[bytes, bool]:
    """Return the body with the model's name at the provider, and whether usage was added to it.

    Only the members of the body are separated; their values are copied as bytes. A chat stream
    reports its usage only if `stream_options.include_usage` is set, so it is set here. `limit` is
    the name and the value of a member that limits the output tokens, for a request without one.

    Raises:
        InvalidError: the body is not a JSON object, or a member selects another model or price.
            Nothing was sent.

    """
    try:
        members = _members(body)
        _check_members(members)
        _check_foreign_limits(members, method)
        members["model"] = msgspec.Raw(_encode(model))
        if limit is not None:
            _ensure_limit(members, method, limit)
        added = streamed and method == CHAT and _add_usage(members)
        return _encode(members), added
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidError(
            f"The body is not a valid JSON object ({error}); correct it.", sent=False
        ) from error


def raw_prediction(body: bytes, method: str) -> bytes:
    """Return the body of a request to a model of Anthropic on Vertex AI.

    The body names the model only for a count of tokens. Otherwise, the URL names it.
    """
    members = _members(body)
    members["anthropic_version"] = _VERTEX_VERSION
    if method != COUNT_TOKENS:
        members.pop("model", None)
    return _encode(members)


def _check_members(members: dict[str, msgspec.Raw]) -> None:
    for name in members:
        folded = name.casefold()
        if folded in GOVERNED and name != folded:
            raise InvalidError(
                f"The member '{name[:64]}' differs from '{folded}' only in letter case; write it "
                "in lower case.",
                sent=False,
            )
    if other := members.keys() & _OTHER_MODELS:
        raise InvalidError(
            f"The member '{min(other)}' selects other models, which the gateway cannot govern; "
            "remove it. An alias with several targets has fallbacks.",
            sent=False,
        )
    for name in members.keys() & _OTHER_LIMITS:
        raise InvalidError(
            f"The member '{name}' overrides '{_OTHER_LIMITS[name]}', by which the budget is "
            f"reserved; use '{_OTHER_LIMITS[name]}'.",
            sent=False,
        )
    for name in members.keys() & _PRICED_AS_USUAL.keys():
        values = _PRICED_AS_USUAL[name]
        if bytes(members[name]) not in (b"null", *(b'"%b"' % each.encode() for each in values)):
            raise InvalidError(
                f"This '{name}' has another price than the model; use {', '.join(values)}.",
                sent=False,
            )


def _check_foreign_limits(members: dict[str, msgspec.Raw], method: str) -> None:
    for name in _FOREIGN_LIMITS.get(method, ()):
        value = bytes(members.get(name, _NULL))
        if value != _NULL and (name, value) != ("n", b"1"):
            raise InvalidError(
                f"The member '{name}' belongs to another API; remove it. '{_LIMITS[method][0]}' "
                "limits the output of this one.",
                sent=False,
            )


def _ensure_limit(members: dict[str, msgspec.Raw], method: str, limit: tuple[str, int]) -> None:
    """Set the limit of output tokens unless there is one. Zeros of OpenAI's APIs are removed."""
    names = _LIMITS.get(method, ())
    if method != MESSAGES:
        for name in names:
            if bytes(members.get(name, _NULL)) in _ZERO:
                del members[name]
    if names and all(bytes(members.get(name, _NULL)) == _NULL for name in names):
        members[limit[0]] = msgspec.Raw(b"%d" % limit[1])


def _add_usage(members: dict[str, msgspec.Raw]) -> bool:
    """Set `stream_options.include_usage`; return False if it was already set."""
    raw = members.get("stream_options")
    options = _members(raw) if raw is not None and bytes(raw)[:1] == b"{" else {}
    _check_members(options)
    if bytes(options.get("include_usage", b"")) == b"true":
        return False
    options["include_usage"] = _TRUE
    members["stream_options"] = msgspec.Raw(_encode(options))
    return True
