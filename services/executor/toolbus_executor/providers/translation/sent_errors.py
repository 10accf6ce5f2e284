"""Errors that a provider sends with the status 200: within a stream, or as the whole response."""

from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common.errors import ModelRefusedError
from toolbus_executor.providers.translation.apis import chat

_UNKNOWN = 502  # of an error without a status
_FIRST, _LAST = 400, 599
# Sources: the service model `bedrock-runtime` of botocore; "Errors" in the documentation of the
# Claude API; "Error codes" in that of OpenAI.
_STATUSES = {
    "throttlingexception": 429,
    "validationexception": 400,
    "serviceunavailableexception": 503,
    "modeltimeoutexception": 504,
    "internalserverexception": 500,
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "invalid_request_error": 400,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
}


class _Body(Struct):
    """The members by which an error differs from a response, or from an event of a stream."""

    error: Any = None
    type: Any = None
    object: Any = None
    choices: Any = None
    content: Any = None
    data: Any = None
    message: str | None = None
    code: Any = None


_body = msgspec.json.Decoder(_Body).decode


def error_of(data: bytes) -> ModelRefusedError | None:
    """Return the error in a body or in the data of an event; None if it is not an error.

    A failed response of the responses API is an answer: it has an id, and clients read its error.
    """
    try:
        body = _body(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if body.object == "response" or body.choices or body.content or body.data:
        return None
    if body.error:
        return error_in(body.error)
    if body.type == "error":  # the form of an event of the responses API
        return error_in({"message": body.message, "code": body.code})
    return None


def error_in(error: Any) -> ModelRefusedError:
    """Return the error of an event that contains an error object, of any form."""
    fields = error if isinstance(error, dict) else {}
    found = [fields.get(name) for name in ("code", "type", "status")]
    kind = next((each for each in found[1:] if isinstance(each, str)), "")
    status = next((known for each in found if (known := _status_of(each))), _UNKNOWN)
    return ModelRefusedError(chat.error_message(error), status=status, type=kind)


def exception_of(name: str, message: str | None) -> ModelRefusedError:
    """Return the error of an exception of AWS."""
    status = _status_of(name) or _UNKNOWN
    return ModelRefusedError(
        message or f"The provider failed without a message ({name[:64]}); see its documentation.",
        status=status,
        type=name,
    )


def _status_of(value: object) -> int:
    """Return the HTTP status that a code or a type of an error means; 0 if it is unknown."""
    if isinstance(value, str):
        return _STATUSES.get(value.lower(), 0)
    is_status = isinstance(value, int) and not isinstance(value, bool)
    return value if is_status and _FIRST <= value <= _LAST else 0  # type: ignore[operator, return-value]
