"""Clients described by a document at their own id (client id metadata documents)."""

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
from toolbus_oauth.clients.registry import described
from toolbus_oauth.storage.http_client import Fetcher, FetchError
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import OAuthError, invalid_client
from toolbus_oauth.web.rate_limit import Pace

LARGEST = 16 * 1024
SHORTEST, LONGEST = 60.0, 86_400.0
MOST_KEPT = 1000
MOST_A_MINUTE = 300
_OK = 200


@dataclass(slots=True)
class Documents:
    """Fetches them, and keeps each as long as its server says."""

    fetcher: Fetcher
    hosts: tuple[str, ...] = ()  # patterns; none: any
    clock: Callable[[], float] = monotonic
    pace: Pace = field(default_factory=lambda: Pace(MOST_A_MINUTE))
    _kept: OrderedDict[str, tuple[float, Client]] = field(default_factory=OrderedDict)

    async def client(self, client_id: str) -> Client:
        """The client that calls itself by this URL. Raises `OAuthError`."""
        self._check(client_id)
        kept = self._kept.get(client_id)
        if kept is not None and kept[0] > self.clock():
            return kept[1]
        self.pace.keep()
        try:
            found = await self.fetcher.get(client_id, largest=LARGEST)
        except FetchError as error:
            raise invalid_client(f"The client's document cannot be fetched: {error}.") from error
        if found.status != _OK:
            raise invalid_client(f"The client's document is answered with {found.status}.")
        client = read(client_id, found.body)
        self._kept[client_id] = (self.clock() + _keep_seconds(found.headers), client)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return client

    def _check(self, client_id: str) -> None:
        parts = urlsplit(client_id)
        dotted = any(each in (".", "..") for each in parts.path.split("/"))
        if parts.path in ("", "/") or dotted or parts.fragment or "@" in parts.netloc:
            raise invalid_client("A client's URL needs a path, and no fragment, user or dots.")
        if self.hosts and not any(fnmatchcase(parts.netloc.lower(), each) for each in self.hosts):
            raise invalid_client("Clients of this host are not taken here.")


def read(client_id: str, body: bytes) -> Client:
    """The client a document describes. Raises `OAuthError`."""
    try:
        told = strict_json.members(body)
    except strict_json.StrictJSONError as error:
        raise invalid_client("The client's document is no JSON object.") from error
    if told.get("client_id") != client_id:
        raise invalid_client("The client's document names another client_id than its own URL.")
    if not isinstance(told.get("client_name"), str) or "client_secret" in told:
        raise invalid_client("The client's document needs a client_name, and may hold no secret.")
    told.setdefault("token_endpoint_auth_method", "none")
    if told["token_endpoint_auth_method"] not in ("none", BY_KEY):
        raise invalid_client(f"A client with a document has no secret: none or {BY_KEY}.")
    told.setdefault("grant_types", ["authorization_code"])
    try:
        return described(told, client_id)
    except OAuthError as error:
        raise invalid_client(f"The client's document: {error.sentence}") from error


def _keep_seconds(headers: Any) -> float:
    told = headers.get("cache-control", "").lower()
    if "no-store" in told or "no-cache" in told:
        return SHORTEST
    found = re.search(r"max-age=([0-9]{1,9})", told)
    return min(LONGEST, max(SHORTEST, float(found[1]) if found else 300.0))
