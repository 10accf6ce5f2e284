"""Which address an API's operations are called at: never one that only a fetched document names."""

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from toolbus_common.openapi.document import DocumentError

_HTTP = re.compile(r"https?://[^/\s?#@]+")
_PLAIN = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)?")


def base_of(servers: Any, source: str, declared: str = "") -> str:
    """The base address, without a slash at its end.

    A document fetched from somewhere may name its own origin and no other: whoever can change
    the document could otherwise send credentials wherever he likes.

    Raises:
        DocumentError: the address has to be declared.

    """
    if declared:
        return _plain(declared)
    named = first_server(servers)
    remote = source if _HTTP.match(source) else ""
    found = urljoin(remote, named) if remote else named
    if not _HTTP.match(found):
        raise DocumentError("It names no address to call; declare base_url.")
    if remote and origin(found) != origin(remote):
        raise DocumentError(
            f"It is called at {'://'.join(origin(found)[:2])}, which is not where it was fetched; "
            "declare that as base_url if it is right."
        )
    return _plain(found)


def _plain(url: str) -> str:
    """An address that can stand before a path, as it is. Raises `DocumentError`."""
    if not _PLAIN.fullmatch(url) or {".", ".."} & set(url.split("/")):
        raise DocumentError(
            "The address to call holds more than a host and a path; declare base_url without it."
        )
    return url.rstrip("/")


def first_server(servers: Any) -> str:
    """The first address of a list of servers, its variables filled in; `/` when there is none."""
    first = servers[0] if isinstance(servers, list) and servers else {}
    url = first.get("url") if isinstance(first, dict) else None
    if not isinstance(url, str) or not url:
        return "/"
    variables = first.get("variables")
    for name, told in variables.items() if isinstance(variables, dict) else ():
        default = told.get("default") if isinstance(told, dict) else None
        url = url.replace(f"{{{name}}}", str(default or ""))
    return url


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port."""
    target = urlsplit(url)
    try:
        port = target.port
    except ValueError:
        port = 0
    default = 443 if target.scheme == "https" else 80
    return target.scheme, (target.hostname or "").lower(), port or default
