"""An API's document, read from its file or fetched from its URL."""

import logging
from pathlib import Path
from urllib.parse import urlsplit

from toolbus_common.errors import UpstreamFaultError
from toolbus_common.web.json_view import visible
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.transport.dialer import Way
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.openapi.http import bytes_of

log = logging.getLogger(__name__)

FETCH_SECONDS = 15.0
LARGEST_FILE = 16 * 1024 * 1024
_OK, _REDIRECTION, _ERRORS = 200, 300, 400


def is_remote(source: str) -> bool:
    """Whether a document is at a URL."""
    return source.startswith(("http://", "https://"))


def read_file(path: str) -> bytes:
    """The text of a file. Raises `UpstreamFaultError`."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise UpstreamFaultError(
            f"The document {path} cannot be read ({reason}); name another with openapi."
        ) from error
    if len(text) > LARGEST_FILE:
        raise UpstreamFaultError(f"The document {path} is larger than {LARGEST_FILE >> 20} MiB.")
    return text


async def fetch(url: str, headers: dict[str, str], way: Way, bearer: Bearer | None = None) -> bytes:
    """The text at a URL; redirections are told and not followed. Raises `ToolbusError`s."""
    transport = Transport(url, headers, way)
    transport.bearer = bearer
    target = urlsplit(url)
    path = f"{target.path or '/'}?{target.query}" if target.query else target.path or "/"
    told = (("Accept", "application/json, application/yaml, */*;q=0.5"),)
    try:
        request = bytes_of("GET", path, transport.common, told)
        head, body = await transport.ask(request, None, FETCH_SECONDS)
    finally:
        transport.close()
    if _REDIRECTION <= head.status < _ERRORS:
        where = head.headers.get(b"location", b"").decode("latin-1").partition("?")[0][:200]
        log.warning("openapi.document_moved", extra={"document": url, "to": visible(where)})
        raise UpstreamFaultError(
            f"The document has moved (HTTP {head.status}); name its new address with openapi."
        )
    if not _OK <= head.status < _REDIRECTION:
        raise UpstreamFaultError(f"The document's server answered HTTP {head.status}.")
    return body
