"""Grants, which represent the access that people give to clients, and their tokens."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import time
from typing import Any

from msgspec.structs import replace

from toolbus_common.access.oauth_scopes import administers
from toolbus_common.access.token_cache import TokenCache
from toolbus_common.config import Configuration
from toolbus_common.contracts import Event, GrantCreated, GrantEnded
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_oauth.accounts.access_rules import entitled_rule
from toolbus_oauth.accounts.local_accounts import Accounts
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.server.dpop_binding import proof_required
from toolbus_oauth.server.scopes import narrow, within
from toolbus_oauth.storage.records import AuthorizationRequest, Client, Grant, Person, Refresh
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web.errors import OAuthError, invalid_grant

ACCESS_TOKEN = "at+jwt"  # noqa: S105 - the type of one
ATTEMPTS = 4


class TokenError(Exception):
    """The access token is not valid; the message contains the reason."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Lifetimes of access tokens and grants, in seconds."""

    access: float
    grant: float


@dataclass(slots=True)
class Grants:
    """Repository of grants and issuer of their tokens."""

    issuer: str
    store: Store
    tokens: Bucket
    bearers: TokenCache
    seal: TokenSealer
    keys: SigningKeys
    lifetimes: Lifetimes
    accounts: Accounts
    config: Callable[[], Configuration]
    publish: Callable[[Event], None]

    async def give(
        self,
        auth_request: AuthorizationRequest,
        person: Person,
        grant_id: str = "",
        *,
        jkt: str = "",
        above: Grant | None = None,
        actors: tuple[str, ...] = (),
    ) -> Grant:
        """Create or update a grant; `jkt` binds its tokens to the key with that thumbprint.

        `above` is the grant that was exchanged for this grant, and `actors` lists the acting
        clients. Raises `OAuthError` if no access rule matches, or if the rule requires a key but
        `jkt` is empty.
        """
        access = self._entitled(auth_request, person, jkt)
        now = time()
        made = Grant(
            id=grant_id or secrets.token_hex(12),
            client_id=auth_request.client_id,
            client=auth_request.client,
            person=person,
            resource=auth_request.resource,
            scope=auth_request.scope,
            made=now,
            ends=above.ends if above is not None else now + self.lifetimes.grant,
            above=above.id if above is not None else "",
            actors=actors,
            jkt=jkt,
        )
        grant = await self._store(made)
        self._publish_created(grant, access)
        return grant

    def rule(self, person: Person, *, administers: bool) -> str | None:
        """Return the access rule that matches a person now, or None.

        With `administers`, the result is None if that rule has no role.
        """
        return entitled_rule(self.config(), person.issuer, person.claims, administers=administers)

    def _entitled(self, auth_request: AuthorizationRequest, person: Person, jkt: str) -> str:
        """Return the access rule that allows the request. Raises `OAuthError`."""
        access = self.rule(person, administers=auth_request.administers)
        if access is None or (auth_request.administers and auth_request.registered):
            raise OAuthError(
                "access_denied", "No access rule grants you access here. Ask your operator.", 403
            )
        self._check_bound(access, jkt)
        return access

    async def _store(self, grant: Grant) -> Grant:
        """Store a grant. If a valid grant with the same id exists, its `born` is retained."""
        born = secrets.token_hex(6)
        for _ in range(ATTEMPTS):
            before, revision = await self.store.get_with_revision(Grant, grant.id)
            valid = before is not None and before.ends > grant.made
            made = replace(grant, born=before.born if before is not None and valid else born)
            if await self.store.swap(grant.id, made, revision):
                return made
        raise OAuthError(
            "temporarily_unavailable", "Concurrent requests changed the grant; retry.", 503
        )

    async def verify_token(self, token: str) -> tuple[dict[str, Any], Grant]:
        """Return a valid access token's claims and its grant, limited to the token's scope.

        Raises `TokenError`.
        """
        found = self.keys.verified(token)
        if found is None or found[0].get("typ") != ACCESS_TOKEN:
            raise TokenError("This is not an access token of this server; sign in here.")
        claims = found[1]
        if claims.get("iss") != self.issuer:
            raise TokenError("This is not an access token of this server; sign in here.")
        if claims["exp"] <= time():
            raise TokenError("This token has expired; refresh it, or sign in again.")
        grant = await self.active(str(claims.get("grant")))
        if grant is None or not _is_of(grant, claims):
            raise TokenError("The grant of this token has ended; sign in again.")
        if not await self.accounts.is_current(grant.person):
            await self.end(grant.id, "the account was changed or removed")
            raise TokenError("The account was changed or removed; sign in again.")
        return claims, replace(grant, scope=_common_scope(grant, claims))

    async def active(self, grant_id: str) -> Grant | None:
        """Return the grant, or None if it or a grant that it was exchanged from has ended."""
        found = grant = await self.store.get(Grant, grant_id)
        while found is not None and found.ends > time():
            if not found.above:
                return grant
            found = await self.store.get(Grant, found.above)
        return None

    async def end(self, grant_id: str, reason: str, by: str = "") -> Grant | None:
        """End a grant and invalidate its tokens; return it, or None if it does not exist."""
        grant = await self.store.get(Grant, grant_id)
        if grant is None:
            return None
        await self.store.drop(Grant, grant_id)
        for token_hash in self.bearers.of_grant(grant_id):
            await self.tokens.delete(token_hash)
        self.publish(
            GrantEnded(
                id=f"{grant_id}.{secrets.token_hex(4)}.ended",
                at=time(),
                customer=DEFAULT_CUSTOMER,
                grant=grant_id,
                user=grant.person.user,
                client_id=grant.client_id,
                reason=reason,
                by=by,
            )
        )
        return grant

    async def renew(self, token: str, client: Client, jkt: str, resource: str, scope: str) -> Grant:
        """Redeem a refresh token and return its grant, limited to the requested scope.

        Raises `OAuthError`. A refresh token that was used before ends the grant, because it was
        probably stolen. A request with a bound token but without a proof of its key is rejected and
        has no effect, because it is not from the token's client.
        """
        refresh = self.seal.open(token, Refresh)
        if refresh is None:
            raise invalid_grant("This refresh token is unknown.")
        for _ in range(ATTEMPTS):
            grant, revision = await self.store.get_with_revision(Grant, refresh.grant)
            if grant is None or grant.client_id != client.id or grant.ends < time():
                raise invalid_grant("The grant of this refresh token has ended; sign in again.")
            used = refresh.generation != grant.generation
            if not used or refresh.jkt:  # a copied bound token is useless without its key
                _check_holds_key(grant, client, jkt)
            if used:
                await self.end(grant.id, "a refresh token was used twice")
                raise invalid_grant("This refresh token was used before; sign in again.")
            await self._check_valid(grant, jkt)
            if resource and resource != grant.resource:
                raise OAuthError(
                    "invalid_target", "The grant is for another resource; sign in for this one."
                )
            less = narrow(grant.scope, scope)
            after = replace(grant, generation=grant.generation + 1, jkt=jkt)
            if await self.store.swap(grant.id, after, revision):
                return replace(after, scope=less)  # limits this token only, not the grant
        raise OAuthError(
            "temporarily_unavailable", "Concurrent requests changed the grant; retry.", 503
        )

    async def _check_valid(self, grant: Grant, jkt: str) -> None:
        person = grant.person
        if not await self.accounts.is_current(person):
            await self.end(grant.id, "the account was changed or removed")
            raise invalid_grant("The account was changed or removed; sign in again.")
        access = self.rule(person, administers=administers(grant.scope))
        if access is None:
            raise invalid_grant(
                "No access rule grants you access here any more. Ask your operator."
            )
        self._check_bound(access, jkt)

    def _check_bound(self, access: str, jkt: str) -> None:
        if self.config().access[access].dpop and not jkt:
            raise proof_required("Your access rule requires DPoP-bound tokens")

    def response(
        self, grant: Grant, *, refreshable: bool = True, until: float = inf
    ) -> dict[str, Any]:
        """Return the token response; the token expires at `until` (Unix time) at the latest."""
        seconds = int(min(self.lifetimes.access, until - time()))
        body: dict[str, Any] = {
            "access_token": self.access_token(grant, seconds),
            "token_type": "DPoP" if grant.jkt else "Bearer",
            "expires_in": seconds,
            "scope": grant.scope,
        }
        if refreshable:
            body["refresh_token"] = self.seal.close(Refresh(grant.id, grant.generation, grant.jkt))
        return body

    def access_token(self, grant: Grant, seconds: int) -> str:
        """Return a signed access token for the grant's resource (RFC 9068)."""
        now = int(time())
        claims = {
            "iss": self.issuer,
            "sub": grant.person.user,
            "aud": grant.resource,
            "client_id": grant.client_id,
            "scope": grant.scope,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(8),
            "grant": grant.id,
            "born": grant.born,
            **_act_claim(grant.actors),
            **({"cnf": {"jkt": grant.jkt}} if grant.jkt else {}),
        }
        return self.keys.sign(claims, ACCESS_TOKEN)

    def _publish_created(self, grant: Grant, access: str) -> None:
        self.publish(
            GrantCreated(
                id=f"{grant.id}.{secrets.token_hex(4)}.created",
                at=grant.made,
                customer=DEFAULT_CUSTOMER,
                grant=grant.id,
                access=access,
                user=grant.person.user,
                client=grant.client,
                client_id=grant.client_id,
                resource=grant.resource,
                scopes=grant.scope,
                actors=grant.actors,
            )
        )


def _act_claim(actors: tuple[str, ...]) -> dict[str, Any]:
    """Return the nested `act` claim (RFC 8693 section 4.1)."""
    claim: dict[str, Any] = {}
    for actor in reversed(actors):
        claim = {"act": {"sub": actor, **claim}}
    return claim


def _is_of(grant: Grant, claims: dict[str, Any]) -> bool:
    """Return whether a token belongs to this grant and is bound to a key if the grant is."""
    named = (claims.get("aud"), claims.get("born", ""))
    return named == (grant.resource, grant.born) and ("cnf" in claims or not grant.jkt)


def _common_scope(grant: Grant, claims: dict[str, Any]) -> str:
    return " ".join(within(grant.scope, str(claims.get("scope", ""))))


def _check_holds_key(grant: Grant, client: Client, jkt: str) -> None:
    """Check that a refresh request proves the grant's key, so that a bound grant stays bound.

    An authenticated client may change its key; for a public client, the key authenticates it.
    """
    if grant.jkt and not jkt:
        raise proof_required("This refresh token is bound to a key")
    if grant.jkt not in ("", jkt) and client.method == "none":
        raise invalid_grant("This refresh token is bound to a key other than the proved one.")
