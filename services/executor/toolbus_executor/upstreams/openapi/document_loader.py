"""Loader of an API's document from a file or a URL."""

import logging
from pathlib import Path
from urllib.parse import urlsplit

from toolbus_common.errors import UpstreamInvalidError
from toolbus_common.web.json_view import visible
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.openapi.http import bytes_of

log = logging.getLogger(__name__)

FETCH_SECONDS = 15.0
LARGEST_FILE = 16 * 1024 * 1024
_OK, _REDIRECTION, _ERRORS = 200, 300, 400


def is_remote(source: str) -> bool:
    """Return whether the source of a document is a URL."""
    return source.startswith(("http://", "https://"))


def read_file(path: str) -> bytes:
    """Return the content of a file. Raises `UpstreamInvalidError`."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise UpstreamInvalidError(
            f"The document {path} cannot be read ({reason}); set its path with 'openapi'."
        ) from error
    if len(text) > LARGEST_FILE:
        raise UpstreamInvalidError(f"The document {path} is larger than {LARGEST_FILE >> 20} MiB.")
    return text


async def fetch(
    url: str, own_headers: dict[str, str], way: Dialer, bearer: Bearer | None = None
) -> bytes:
    """Return the document at a URL. Redirects are not followed.

    Raises:
        ToolbusError: the document cannot be fetched, or it has moved.

    """
    transport = Transport(url, own_headers, way)
    transport.bearer = bearer
    target = urlsplit(url)
    path = f"{target.path or '/'}?{target.query}" if target.query else target.path or "/"
    headers = (("Accept", "application/json, application/yaml, */*;q=0.5"),)
    try:
        request = bytes_of("GET", path, transport.common, headers)
        head, body = await transport.request(request, None, FETCH_SECONDS)
    finally:
        transport.close()
    if _REDIRECTION <= head.status < _ERRORS:
        where = head.headers.get(b"location", b"").decode("latin-1").partition("?")[0][:200]
        log.warning("openapi.document_moved", extra={"document": url, "to": visible(where)})
        raise UpstreamInvalidError(
            f"The document has moved (HTTP {head.status}); set its new address with 'openapi'."
        )
    if not _OK <= head.status < _REDIRECTION:
        raise UpstreamInvalidError(
            f"The document's server returned HTTP {head.status}; check its log."
        )
    return body
