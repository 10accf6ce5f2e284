"""Typed decoding of bodies, and the errors about fields that the provider's API cannot carry."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from toolbus_common.errors import InvalidError, ToolbusError, UpstreamInvalidError

T = TypeVar("T")
CHAT_API, MESSAGES_API = "chat completions API", "messages API"
RESPONSES_API, GEMINI_API, CONVERSE_API = "responses API", "API of Gemini", "Converse API"
# A data URL (RFC 2397) with base64; parameters such as a charset are ignored.
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+=-]+)*;base64,", re.IGNORECASE)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def read(body: Any, kind: type[T]) -> T:
    """Return a request as `kind`. Raises `InvalidError` with the path of an invalid value."""
    try:
        return msgspec.convert(body, kind)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidError(f"The body has an invalid form: {error}. Correct this field.") from None


def read_response(body: Any, kind: type[T]) -> T:
    """Return a response of the provider as `kind`. Raises `UpstreamInvalidError`."""
    try:
        return msgspec.convert(body, kind)
    except (ValueError, TypeError, RecursionError) as error:
        raise UpstreamInvalidError(
            f"The provider's response has an invalid form: {error}. Check the provider's 'apis'."
        ) from None


def decoder(kind: type[T]) -> Callable[[bytes], T]:
    """Return a decoder of events of the provider. It raises `UpstreamInvalidError`."""
    decode = msgspec.json.Decoder(kind).decode

    def decoded(data: bytes) -> T:
        try:
            return decode(data)
        except (ValueError, RecursionError) as error:
            raise UpstreamInvalidError(
                f"The provider sent an invalid event: {error}. Check the provider's 'apis'."
            ) from None

    return decoded


def encode(value: Any, failure: type[ToolbusError] = UpstreamInvalidError) -> bytes:
    """Return the JSON of the value. Raises `failure` if it is nested too deeply."""
    try:
        return _encode(value)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise failure(f"A value cannot be encoded as JSON: {error}. Nest it less.") from None


def arguments_of(text: str | None, tool: str, failure: type[ToolbusError]) -> dict[str, Any]:
    """Return the arguments of a tool call. An empty text means that there are none.

    Raises `failure` if the text is not a JSON object.
    """
    if text is None or not text.strip():
        return {}
    try:
        return _decode(text)
    except (ValueError, RecursionError):
        raise failure(
            f"The arguments of the call of the tool '{tool}' are not a JSON object, which the "
            "other API requires. Repeat the request, or correct the message."
        ) from None


def unsupported(
    what: str, api: str, fix: str = "Remove it, or use another provider"
) -> InvalidError:
    """Return the error about a part of the request that the provider's API cannot carry."""
    return InvalidError(
        f"The request is translated to the {api}, which cannot carry {what}. {fix}."
    )


def check_fields(body: dict[str, Any], known: frozenset[str], api: str) -> None:
    """Raise `InvalidError` for a field with a value that is not in `known`."""
    if not isinstance(body, dict):
        raise InvalidError("The body is not a JSON object. Send one.")
    for name, value in body.items():
        if name not in known and not _is_empty(value):
            raise unsupported(f"the field '{name[:64]}'", api)


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ([], {})


def data_url(url: str) -> tuple[str, str] | None:
    """Return the media type and the base64 text of a data URL; None for any other URL."""
    if url[:5].lower() != "data:":
        return None
    found = _DATA_URL.match(url)
    if found is None:
        raise InvalidError("A data URL is not of the form 'data:<type>;base64,<data>'. Correct it.")
    return found.group(1).lower(), url[found.end() :]
