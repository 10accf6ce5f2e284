"""Dynamic client registration (RFC 7591) at issuers without a configured client."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.config import Server
from toolbus_common.config.servers.oauth import BY_KEY
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest
from toolbus_oauth.oauth_client.scope_values import scopes_in
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.records import Registration
from toolbus_oauth.upstreams.discovery import AuthorizationServer, DiscoveryError

METHODS = ("client_secret_basic", "client_secret_post", BY_KEY, "none")
BY_SECRET = METHODS[:2]
YOUNG_SECONDS = 60.0  # a younger registration is assumed to exist at the issuer
_USUAL = "client_secret_basic"  # the default of RFC 8414
_LATEST = 1e11  # seconds since the epoch; a larger value is not a date
_CREATED = (200, 201)

ClientMetadata = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DynamicRegistration:
    """Repository of registrations: one per issuer, shared by all replicas."""

    store: Store
    fetcher: HttpClient
    is_named: Callable[[str, Server], bool]

    async def at(
        self, server: Server, found: AuthorizationServer, terms: ClientMetadata
    ) -> Registration:
        """Return the registration at this issuer; create it if needed. Raises `DiscoveryError`."""
        registration, revision = await self.store.get_with_revision(Registration, found.issuer)
        if registration is not None and _is_usable(registration):
            return registration
        made = _parse_registration(found, await self._register(server, found, terms))
        if not await self.store.swap(found.issuer, made, revision):  # another replica was first
            return await self.store.get(Registration, found.issuer) or made
        return made

    async def known(self, issuer: str, client_id: str) -> Registration | None:
        """Return the registration with this id, or None if it was replaced or deleted."""
        registration = await self.store.get(Registration, issuer)
        return (
            registration if registration is not None and _is_of(registration, client_id) else None
        )

    async def forget(self, issuer: str, client_id: str) -> bool:
        """Mark a registration as deleted by its issuer; return False if it was replaced."""
        registration, revision = await self.store.get_with_revision(Registration, issuer)
        if registration is None or not _is_of(registration, client_id):
            return False
        # A write with the revision, unlike a deletion, preserves a concurrent new registration.
        await self.store.swap(issuer, Registration(issuer, "", "", ""), revision)
        return True

    async def is_old(self, issuer: str, client_id: str) -> bool:
        """Return whether a registration is old enough that its issuer may have deleted it."""
        registration = await self.known(issuer, client_id)
        return registration is not None and registration.made < time() - YOUNG_SECONDS

    async def _register(
        self, server: Server, found: AuthorizationServer, terms: ClientMetadata
    ) -> dict[str, Any]:
        where, redirect = found.url("registration_endpoint"), terms["redirect_uris"][0]
        if not where:
            reason = "supports no dynamic client registration"
            if found.takes_documents and not found.says_issuer:
                reason += ", and accepts client documents without sending iss (RFC 9207)"
            raise DiscoveryError(
                f"{found.issuer} {reason}; register Toolbus there with the redirect URI "
                f"{redirect}, and configure it under oauth.clients"
            )
        body, headers = msgspec.json.encode(terms), {"content-type": "application/json"}
        try:
            named = self.is_named(where, server)
            answer = await self.fetcher.send(
                HttpRequest("POST", where, body, headers, operator_named=named)
            )
            registration = strict_json.members(answer.body)
        except (HttpError, strict_json.StrictJSONError) as error:
            raise DiscoveryError(
                f"its authorization server cannot register Toolbus: {error}"
            ) from error
        if answer.status not in _CREATED:
            raise DiscoveryError(
                f"{found.issuer} rejected the registration (HTTP {answer.status}); "
                f"register Toolbus there with the redirect URI {redirect}, and configure it under "
                "oauth.clients"
            )
        return registration


def client_metadata(
    found: AuthorizationServer, metadata: dict[str, Any], redirect: str
) -> ClientMetadata:
    """Return the client metadata to register at an issuer."""
    copied = ("client_name", "client_uri", "response_types", "application_type")
    terms: ClientMetadata = {name: metadata[name] for name in copied}
    terms["redirect_uris"] = [redirect]
    terms["grant_types"] = ["authorization_code", "refresh_token"]
    method = terms["token_endpoint_auth_method"] = preferred_method(found, secret=True)
    if method == BY_KEY:
        terms["jwks_uri"] = metadata["jwks_uri"]
    scopes = scopes_in(found.document.get("scopes_supported")) or found.scopes
    if scopes:  # all: some issuers later reject scopes that were not registered
        terms["scope"] = " ".join(scopes)
    return terms


def preferred_method(found: AuthorizationServer, *, secret: bool) -> str:
    """Return the preferred authentication method that the issuer supports."""
    listed = found.document.get("token_endpoint_auth_methods_supported")
    supported = listed if isinstance(listed, list) else [_USUAL]
    methods = METHODS if secret else ("none", BY_KEY)
    return next((each for each in methods if each in supported), methods[0])


def _parse_registration(found: AuthorizationServer, response: dict[str, Any]) -> Registration:
    """Parse a registration response. Raises `DiscoveryError`."""
    secret, client_id = response.get("client_secret", ""), response.get("client_id")
    if not isinstance(client_id, str) or not client_id or not isinstance(secret, str):
        raise DiscoveryError("its authorization server returned an invalid registration")
    method = response.get("token_endpoint_auth_method")
    if method not in METHODS:
        method = preferred_method(found, secret=bool(secret))
    ends = _ends(response) if method in BY_SECRET else 0.0
    return Registration(found.issuer, client_id, secret, method, ends, time())


def _ends(response: dict[str, Any]) -> float:
    """Return the Unix time at which the secret expires; 0 if it is missing or implausible."""
    ends = response.get("client_secret_expires_at")
    if isinstance(ends, int | float) and time() + YOUNG_SECONDS < ends < _LATEST:
        return float(ends)
    return 0.0


def _is_of(registration: Registration, client_id: str) -> bool:
    return bool(client_id) and registration.id == client_id


def _is_usable(registration: Registration) -> bool:
    """Return whether the issuer has not deleted the registration and its secret is not expired."""
    return bool(registration.id) and not 0 < registration.ends <= time()
