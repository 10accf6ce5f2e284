"""A page for a person, as an HTTP answer. Pure."""

from toolbus_common import webpage
from toolbus_ingress.jsonrpc import Response

_HEADERS = tuple((name.encode(), value.encode()) for name, value in webpage.headers())


def page(status: int, title: str, body: str) -> Response:
    """The answer; `body` is HTML already."""
    return Response(status, webpage.document(title, body), _HEADERS)
