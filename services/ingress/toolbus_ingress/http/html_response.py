"""HTML pages as HTTP responses. Pure."""

from toolbus_common.web import html
from toolbus_ingress.http.jsonrpc import Response

_HEADERS = tuple((name.encode(), value.encode()) for name, value in html.headers())


def page(status: int, title: str, body: str) -> Response:
    """Return a page; `body` must be escaped HTML."""
    return Response(status, html.document(title, body), _HEADERS)
