"""Clients whose id is the URL of a client ID metadata document."""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from toolbus_common import strict_json
from toolbus_common.config.servers.oauth import BY_KEY
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest
from toolbus_oauth.clients.registry import parse_metadata
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import OAuthError, invalid_client
from toolbus_oauth.web.rate_limit import RateLimit

LARGEST = 16 * 1024
SHORTEST, LONGEST = 60.0, 86_400.0
MAX_CACHED = 1000
MAX_PER_MINUTE = 300
_OK = 200


@dataclass(slots=True)
class ClientDocuments:
    """Cache of client documents; each is stored as long as its `cache-control` allows."""

    fetcher: HttpClient
    hosts: tuple[str, ...] = ()  # patterns of allowed hosts; empty allows every host
    clock: Callable[[], float] = monotonic
    rate_limit: RateLimit = field(default_factory=lambda: RateLimit(MAX_PER_MINUTE))
    _cached: OrderedDict[str, tuple[float, Client]] = field(default_factory=OrderedDict)

    async def client(self, client_id: str) -> Client:
        """Return the client whose id is this URL. Raises `OAuthError`."""
        self._check(client_id)
        cached = self._cached.get(client_id)
        if cached is not None and cached[0] > self.clock():
            return cached[1]
        self.rate_limit.keep()
        try:
            found = await self.fetcher.send(HttpRequest("GET", client_id, max_bytes=LARGEST))
        except HttpError as error:
            raise invalid_client(f"The client's document cannot be fetched: {error}.") from error
        if found.status != _OK:
            raise invalid_client(f"The client's document cannot be fetched: HTTP {found.status}.")
        client = parse_document(client_id, found.body)
        self._cached[client_id] = (self.clock() + _cache_seconds(found.headers), client)
        while len(self._cached) > MAX_CACHED:
            self._cached.popitem(last=False)
        return client

    def _check(self, client_id: str) -> None:
        parts = urlsplit(client_id)
        dotted = any(each in (".", "..") for each in parts.path.split("/"))
        if parts.path in ("", "/") or dotted or parts.fragment or "@" in parts.netloc:
            raise invalid_client(
                "A client_id URL must have a path, and no fragment, user name or dot segments."
            )
        if self.hosts and not any(fnmatchcase(parts.netloc.lower(), each) for each in self.hosts):
            raise invalid_client(
                "Clients of this host are not allowed; an operator can allow the host in "
                "TOOLBUS_OAUTH_CLIENTS."
            )


def parse_document(client_id: str, body: bytes) -> Client:
    """Parse a client document. Raises `OAuthError`."""
    try:
        metadata = strict_json.members(body)
    except strict_json.StrictJSONError as error:
        raise invalid_client("The client's document is not a JSON object.") from error
    if metadata.get("client_id") != client_id:
        raise invalid_client(
            "The client_id in the client's document differs from the document's URL."
        )
    if not isinstance(metadata.get("client_name"), str) or "client_secret" in metadata:
        raise invalid_client("The client's document must have a client_name and no client_secret.")
    metadata.setdefault("token_endpoint_auth_method", "none")
    if metadata["token_endpoint_auth_method"] not in ("none", BY_KEY):
        raise invalid_client(
            f"token_endpoint_auth_method of a client's document must be none or {BY_KEY}."
        )
    metadata.setdefault("grant_types", ["authorization_code"])
    try:
        return parse_metadata(metadata, client_id)
    except OAuthError as error:
        raise invalid_client(f"The client's document: {error.message}") from error


def _cache_seconds(headers: Any) -> float:
    cache_control = headers.get("cache-control", "").lower()
    if "no-store" in cache_control or "no-cache" in cache_control:
        return SHORTEST
    found = re.search(r"max-age=([0-9]{1,9})", cache_control)
    return min(LONGEST, max(SHORTEST, float(found[1]) if found else 300.0))
