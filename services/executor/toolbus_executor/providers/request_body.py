"""Bodies of requests to providers: the client's body with another model (no I/O)."""

import msgspec

from toolbus_common.contracts.model_calls import CHAT
from toolbus_common.errors import InvalidError

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_TRUE = msgspec.Raw(b"true")


def rewritten(body: bytes, model: str, method: str, *, streamed: bool) -> tuple[bytes, bool]:
    """Return the body with the model's name at the provider, and whether usage was added to it.

    Only the members of the body are separated; their values are copied as bytes. A chat stream
    reports its usage only if `stream_options.include_usage` is set, so it is set here.

    Raises:
        InvalidError: the body is not a JSON object. Nothing was sent.

    """
    try:
        members = _members(body)
        members["model"] = msgspec.Raw(_encode(model))
        added = streamed and method == CHAT and _add_usage(members)
        return _encode(members), added
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidError(
            f"The body is not a valid JSON object ({error}); correct it.", sent=False
        ) from error


def _add_usage(members: dict[str, msgspec.Raw]) -> bool:
    """Set `stream_options.include_usage`; return False if it was already set."""
    raw = members.get("stream_options")
    options = _members(raw) if raw is not None and bytes(raw)[:1] == b"{" else {}
    if bytes(options.get("include_usage", b"")) == b"true":
        return False
    options["include_usage"] = _TRUE
    members["stream_options"] = msgspec.Raw(_encode(options))
    return True
