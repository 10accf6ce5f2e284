"""HTML pages as HTTP responses."""

from functools import cache

from toolbus_common.web import html
from toolbus_ingress.http.jsonrpc import Response


def page(status: int, template: str, error: str = "", **values: object) -> Response:
    """Return a rendered template; `error` is shown as an alert."""
    return Response(status, html.render(template, error=error, **values).encode(), _headers())


@cache
def _headers() -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode(), value.encode()) for name, value in html.headers())
