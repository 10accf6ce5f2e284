"""API keys in the header `x-api-key`, as Anthropic's SDKs send them."""

from toolbus_common.errors import UnauthorizedError
from toolbus_ingress.http.request_guard import Headers

API_KEY = b"x-api-key"


def with_credential(headers: Headers) -> Headers:
    """Return the headers with the key of `x-api-key` as a bearer credential.

    Raises:
        UnauthorizedError: `authorization` contains another credential.

    """
    api_key = headers.get(API_KEY)
    if api_key is None:
        return headers
    sent = headers.get(b"authorization")
    if sent is None:
        return {**headers, b"authorization": b"Bearer %b" % api_key}
    if sent.partition(b" ")[2].strip() != api_key:
        raise UnauthorizedError(
            "'authorization' and 'x-api-key' contain different credentials. Send only one of them."
        )
    return headers
