"""Documents of an MCP registry: a file, a URL of a file, or the registry's API.

A request goes to checked addresses only, follows no redirect, and has limits for time and size.
"""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from toolbus_cli.errors import CommandError
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import Tls
from toolbus_common.settings import Settings

LARGEST = 32 << 20  # bytes of a document
SECONDS = 30.0
PAGE, MAX_PAGES = 100, 50
API = "/v0/servers"
NOT_FOUND = 404


def documents(source: str, search: str = "", name: str = "", version: str = "") -> list[Any]:
    """Return the documents of a source that can contain a server.

    A source that is a URL without a file name is a registry: it is searched for `search`, or asked
    for one version of the server `name`. Raises `CommandError`.
    """
    if not source.startswith(("http://", "https://")):
        return [_parsed(_read(Path(source)), source)]
    if Path(urlsplit(source).path).suffix == ".json":
        return asyncio.run(_fetched(source))
    base = source.rstrip("/").removesuffix(API)
    if name and version:
        path = f"{API}/{quote(name, safe='')}/versions/{quote(version, safe='')}"
        return asyncio.run(_fetched(f"{base}{path}"))
    return asyncio.run(_searched(base, search or name))


async def _fetched(url: str) -> list[Any]:
    client = _client()
    try:
        found = await _get(client, url)
    finally:
        client.close()
    return [found] if found is not None else []


async def _searched(base: str, search: str) -> list[Any]:
    """Return the pages of a registry's list; older registries ignore `search`."""
    client, pages, cursor = _client(), [], ""
    try:
        for _ in range(MAX_PAGES):
            query = f"?limit={PAGE}" + (f"&search={quote(search)}" if search else "")
            page = await _get(client, f"{base}{API}{query}{cursor}")
            if page is None:
                raise CommandError(f"{base} is not an MCP registry; give another URL.")
            pages.append(page)
            following = _next(page)
            if not following:
                return pages
            cursor = f"&cursor={quote(following, safe='')}"
    finally:
        client.close()
    raise CommandError(
        f"{base} returned more than {PAGE * MAX_PAGES} servers; search for a part of the name."
    )


def _next(page: Any) -> str:
    metadata = page.get("metadata") if isinstance(page, dict) else None
    found = metadata if isinstance(metadata, dict) else {}
    cursor = found.get("nextCursor", found.get("next_cursor"))
    return cursor if isinstance(cursor, str) else ""


async def _get(client: HttpClient, url: str) -> Any:
    """Return the JSON at a URL; None if there is none."""
    request = HttpRequest(
        "GET", url, headers={"Accept": "application/json"}, operator_named=True,
        seconds=SECONDS, max_bytes=LARGEST,
    )  # fmt: skip
    try:
        response = await client.send(request)
    except HttpError as error:
        raise CommandError(
            f"{url} cannot be read: {error}. Check the URL, or save the document and give the file."
        ) from error
    if response.status == NOT_FOUND:
        return None
    if not response.accepted:
        raise CommandError(f"{url} returned HTTP {response.status}; check the URL.")
    return _parsed(response.body, url)


def _client() -> HttpClient:
    settings = Settings()
    return HttpClient(CheckedResolver(settings.egress, tls_to_public=True), Tls(settings.egress_ca))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise CommandError(f"{path} is larger than {LARGEST >> 20} MiB; give a part of it.")
        return path.read_bytes()
    except OSError as error:
        raise CommandError(
            f"{path} cannot be read ({(error.strerror or 'unreadable').lower()}); give another "
            "file or the URL of a registry."
        ) from error


def _parsed(body: bytes, source: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{source} is not valid JSON; give another file or URL.") from error
