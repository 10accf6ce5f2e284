"""Responses for paths that the models API does not have, in the form of the client's API.

Clients request such paths for endpoints that the gateway does not serve, such as batches, and if
their base URL is wrong: OpenAI's ends with `/v1`, Anthropic's does not.
"""

from http import HTTPStatus

from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.models_api import errors
from toolbus_ingress.models_api.errors import Dialect

LONGEST_PATH = 100  # characters that an error repeats
_VERSION, _TWICE, _MESSAGES = "/v1", "/v1/v1/", "/messages"
_WITHOUT_VERSION = frozenset(
    {"/chat/completions", "/completions", "/responses", "/embeddings", "/models", _MESSAGES}
)
_SERVED = (
    "It serves POST /v1/chat/completions, /v1/responses, /v1/embeddings, /v1/messages and "
    "/v1/messages/count_tokens, and GET /v1/models."
)


def lacks_version(path: str) -> bool:
    """Return whether a client requests this path because its base URL does not end with `/v1`."""
    return path in _WITHOUT_VERSION


def is_of_messages(path: str) -> bool:
    """Return whether a path is one of Anthropic's API, such as `/v1/messages/batches`."""
    return path.removeprefix(_VERSION).removeprefix(_VERSION).startswith(_MESSAGES)


def response(method: str, path: str, dialect: Dialect) -> Response:
    """Return the response to a request for an unknown path. It says what to request instead."""
    if lacks_version(path):
        fix = f"Set the client's base URL to one that ends with {_VERSION}."
        if dialect is Dialect.ANTHROPIC:
            fix = f"Request {_VERSION}{path}."
    elif path.startswith(_TWICE):
        fix = f"Remove {_VERSION} from the end of the client's base URL."
    else:
        fix = _SERVED
    message = f"The gateway does not serve {method} {path[:LONGEST_PATH]}. {fix}"
    return errors.plain(HTTPStatus.NOT_FOUND, message, dialect)
