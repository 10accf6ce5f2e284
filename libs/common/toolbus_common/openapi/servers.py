"""Base address of an API. A fetched document cannot specify another host."""

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from toolbus_common.openapi.document import DocumentError

_HTTP = re.compile(r"https?://[^/\s?#@]+")
_PLAIN = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)?")


def base_of(servers: Any, source: str, configured: str = "") -> str:
    """Return the base address of an API without a slash at its end.

    `source` is the URL or path of the document, and `configured` is the configured address. The
    address in a fetched document must have the document's origin. Otherwise, a person who can
    change the document could redirect credentials.

    Raises:
        DocumentError: the address must be configured.

    """
    if configured:
        return _plain(configured)
    named = first_server(servers)
    remote = source if _HTTP.match(source) else ""
    found = urljoin(remote, named) if remote else named
    if not _HTTP.match(found):
        raise DocumentError("It contains no server address; set base_url.")
    if remote and origin(found) != origin(remote):
        raise DocumentError(
            f"Its server address {'://'.join(origin(found)[:2])} is not the origin it was fetched "
            "from; set base_url if it is correct."
        )
    return _plain(found)


def _plain(url: str) -> str:
    """Return the URL if it consists of a host and a path only. Raises `DocumentError`."""
    if not _PLAIN.fullmatch(url) or {".", ".."} & set(url.split("/")):
        raise DocumentError(
            "The server address contains more than a host and a path; set base_url to only these."
        )
    return url.rstrip("/")


def first_server(servers: Any) -> str:
    """Return the URL of the first server, with default values for its variables.

    Return `/` if there is no server.
    """
    first = servers[0] if isinstance(servers, list) and servers else {}
    url = first.get("url") if isinstance(first, dict) else None
    if not isinstance(url, str) or not url:
        return "/"
    variables = first.get("variables")
    for name, variable in variables.items() if isinstance(variables, dict) else ():
        default = variable.get("default") if isinstance(variable, dict) else None
        url = url.replace(f"{{{name}}}", str(default or ""))
    return url


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL."""
    target = urlsplit(url)
    try:
        port = target.port
    except ValueError:
        port = 0
    default = 443 if target.scheme == "https" else 80
    return target.scheme, (target.hostname or "").lower(), port or default
