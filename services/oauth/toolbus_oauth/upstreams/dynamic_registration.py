"""Registering Toolbus where no client was declared for it, and anew where that was forgotten."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.config import Server
from toolbus_common.config.servers.oauth import BY_KEY
from toolbus_oauth.storage.http_client import Fetcher, FetchError
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.records import Enrolled
from toolbus_oauth.upstreams.discovery import DiscoveryError, Found, scopes_in

METHODS = ("client_secret_basic", "client_secret_post", BY_KEY, "none")
BY_SECRET = METHODS[:2]
YOUNG_SECONDS = 60.0  # a registration of just now was hardly forgotten
_USUAL = "client_secret_basic"  # RFC 8414: where nothing is said
_LATEST = 1e11  # a time, in seconds, that is no date of anybody's
_CREATED = (200, 201)

Terms = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Enrolling:
    """One registration at each issuer (RFC 7591), shared by all replicas."""

    store: Store
    fetcher: Fetcher
    is_named: Callable[[str, Server], bool]

    async def at(self, server: Server, found: Found, terms: Terms) -> Enrolled:
        """What this issuer registered us as, now if it has to. Raises `DiscoveryError`."""
        enrolled, revision = await self.store.seen(Enrolled, found.issuer)
        if enrolled is not None and _stands(enrolled):
            return enrolled
        made = _enrolled(found, await self._registered(server, found, terms))
        if not await self.store.swap(found.issuer, made, revision):  # another replica was first
            return await self.store.get(Enrolled, found.issuer) or made
        return made

    async def known(self, issuer: str, client_id: str) -> Enrolled | None:
        """The registration of this id, unless there is another one by now, or none."""
        enrolled = await self.store.get(Enrolled, issuer)
        return enrolled if enrolled is not None and _is_of(enrolled, client_id) else None

    async def forget(self, issuer: str, client_id: str) -> bool:
        """The issuer does not know this client any more; whether it was of a registration."""
        enrolled, revision = await self.store.seen(Enrolled, issuer)
        if enrolled is None or not _is_of(enrolled, client_id):
            return False
        # Not deleted: whoever registered anew meanwhile would be forgotten with it.
        await self.store.swap(issuer, Enrolled(issuer, "", "", ""), revision)
        return True

    async def is_old(self, issuer: str, client_id: str) -> bool:
        """Whether this client is of a registration that may have been forgotten since."""
        enrolled = await self.known(issuer, client_id)
        return enrolled is not None and enrolled.made < time() - YOUNG_SECONDS

    async def _registered(self, server: Server, found: Found, terms: Terms) -> dict[str, Any]:
        where, redirect = found.url("registration_endpoint"), terms["redirect_uris"][0]
        if not where:
            why = "lets no client register itself"
            if found.takes_documents and not found.says_issuer:
                why += ", and takes documents of clients without saying who answers (RFC 9207)"
            raise DiscoveryError(
                f"{found.issuer} {why}; register Toolbus there with the redirect URI "
                f"{redirect}, and declare it under oauth.clients"
            )
        body, headers = msgspec.json.encode(terms), {"content-type": "application/json"}
        try:
            answer = await self.fetcher.post(
                where, body, headers, named=self.is_named(where, server)
            )
            told = strict_json.members(answer.body)
        except (FetchError, strict_json.StrictJSONError) as error:
            raise DiscoveryError(f"its authorization server registers nobody: {error}") from error
        if answer.status not in _CREATED:
            raise DiscoveryError(
                f"{found.issuer} does not register Toolbus (it answers {answer.status}); register "
                f"it with the redirect URI {redirect}, and declare it under oauth.clients"
            )
        return told


def terms_at(found: Found, metadata: dict[str, Any], redirect: str) -> Terms:
    """What we ask an issuer to register: our metadata, in the way it takes. Pure."""
    kept = ("client_name", "client_uri", "response_types", "application_type")
    terms: Terms = {name: metadata[name] for name in kept}
    terms["redirect_uris"] = [redirect]
    terms["grant_types"] = ["authorization_code", "refresh_token"]
    way = terms["token_endpoint_auth_method"] = liked(found, secret=True)
    if way == BY_KEY:
        terms["jwks_uri"] = metadata["jwks_uri"]
    scopes = scopes_in(found.document.get("scopes_supported")) or found.scopes
    if scopes:  # of all servers of this issuer: some let a client ask for no others later
        terms["scope"] = " ".join(scopes)
    return terms


def liked(found: Found, *, secret: bool) -> str:
    """The first of our ways that the server takes. Pure."""
    listed = found.document.get("token_endpoint_auth_methods_supported")
    taken = listed if isinstance(listed, list) else [_USUAL]
    ways = METHODS if secret else ("none", BY_KEY)
    return next((each for each in ways if each in taken), ways[0])


def _enrolled(found: Found, told: dict[str, Any]) -> Enrolled:
    """What was answered, as far as it can be used. Raises `DiscoveryError`."""
    secret, client_id = told.get("client_secret", ""), told.get("client_id")
    if not isinstance(client_id, str) or not client_id or not isinstance(secret, str):
        raise DiscoveryError("its authorization server registered nobody")
    method = told.get("token_endpoint_auth_method")
    if method not in METHODS:
        method = liked(found, secret=bool(secret))
    ends = _ends(told) if method in BY_SECRET else 0.0
    return Enrolled(found.issuer, client_id, secret, method, ends, time())


def _ends(told: dict[str, Any]) -> float:
    """When the secret ends; 0: never, or at a time that would have us register all the time."""
    ends = told.get("client_secret_expires_at")
    if isinstance(ends, int | float) and time() + YOUNG_SECONDS < ends < _LATEST:
        return float(ends)
    return 0.0


def _is_of(enrolled: Enrolled, client_id: str) -> bool:
    return bool(client_id) and enrolled.id == client_id


def _stands(enrolled: Enrolled) -> bool:
    """Whether it can be shown: it was not forgotten, and its secret has not ended."""
    return bool(enrolled.id) and not 0 < enrolled.ends <= time()
