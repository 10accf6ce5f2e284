"""What people let clients do: given, renewed by refresh tokens that are good once, and ended."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import time
from typing import Any

from msgspec.structs import replace

from toolbus_common.access.oauth_scopes import administers
from toolbus_common.access.token_cache import Bearers
from toolbus_common.config import Configuration
from toolbus_common.contracts import Event, GrantCreated, GrantEnded
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_oauth.accounts.access_rules import entitling
from toolbus_oauth.accounts.local_accounts import Accounts
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.server.dpop_binding import unbound
from toolbus_oauth.server.scopes import narrowed, within
from toolbus_oauth.storage.records import Client, Grant, Person, Refresh, Wish
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web.errors import OAuthError, invalid_grant

ACCESS_TOKEN = "at+jwt"  # noqa: S105 - the type of one
ATTEMPTS = 4


class TokenError(Exception):
    """No access token of ours that is good now; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long things last, in seconds."""

    access: float
    grant: float


@dataclass(slots=True)
class Grants:
    """The grants, and tokens made of them."""

    issuer: str
    store: Store
    tokens: Bucket
    bearers: Bearers
    seal: TokenSealer
    keys: SigningKeys
    lifetimes: Lifetimes
    accounts: Accounts
    declared: Callable[[], Configuration]
    say: Callable[[Event], None]

    async def give(
        self,
        wish: Wish,
        person: Person,
        grant_id: str = "",
        *,
        jkt: str = "",
        above: Grant | None = None,
        actors: tuple[str, ...] = (),
    ) -> Grant:
        """Let a client act for somebody, with tokens that are bound to the key of `jkt` if given.

        Raises `OAuthError` where no rule lets them, or theirs wants a key and there is none.
        """
        access = self._entitled(wish, person, jkt)
        now = time()
        made = Grant(
            id=grant_id or secrets.token_hex(12),
            client_id=wish.client_id,
            client=wish.client,
            person=person,
            resource=wish.resource,
            scope=wish.scope,
            made=now,
            ends=above.ends if above is not None else now + self.lifetimes.grant,
            above=above.id if above is not None else "",
            actors=actors,
            jkt=jkt,
        )
        grant = await self._kept(made)
        self._say_given(grant, access)
        return grant

    def rule(self, person: Person, *, administers: bool) -> str | None:
        """The rule that grants them something by now; for the administration, a role."""
        return entitling(self.declared(), person.issuer, person.claims, administers=administers)

    def _entitled(self, wish: Wish, person: Person, jkt: str) -> str:
        """The rule that lets them. Raises `OAuthError`."""
        access = self.rule(person, administers=wish.administers)
        if access is None or (wish.administers and wish.registered):
            raise OAuthError("access_denied", "No rule grants you anything here.", 403)
        self._check_bound(access, jkt)
        return access

    async def _kept(self, grant: Grant) -> Grant:
        """Write it down; where one of its id stands still, it is that one's next tokens."""
        born = secrets.token_hex(6)
        for _ in range(ATTEMPTS):
            before, revision = await self.store.seen(Grant, grant.id)
            stands = before is not None and before.ends > grant.made
            made = replace(grant, born=before.born if before is not None and stands else born)
            if await self.store.swap(grant.id, made, revision):
                return made
        raise OAuthError("temporarily_unavailable", "Try again.", 503)

    async def of_token(self, token: str) -> tuple[dict[str, Any], Grant]:
        """The claims of an access token of ours that is good now, and its grant as far as it goes.

        A token that was refreshed for less is good for that alone. Raises `TokenError`.
        """
        found = self.keys.verified(token)
        if found is None or found[0].get("typ") != ACCESS_TOKEN:
            raise TokenError("This is no access token of ours.")
        claims = found[1]
        if claims.get("iss") != self.issuer:
            raise TokenError("This is no access token of ours.")
        if claims["exp"] <= time():
            raise TokenError("This token has expired; refresh it, or sign in again.")
        grant = await self.standing(str(claims.get("grant")))
        if grant is None or not _is_of(grant, claims):
            raise TokenError("What this token stood for has ended; sign in again.")
        if not await self.accounts.stands(grant.person):
            await self.end(grant.id, "the account is another one now, or none")
            raise TokenError("The account is another one now; sign in again.")
        return claims, replace(grant, scope=_common(grant, claims))

    async def standing(self, grant_id: str) -> Grant | None:
        """The grant, if it and all it was exchanged for are good still."""
        found = grant = await self.store.get(Grant, grant_id)
        while found is not None and found.ends > time():
            if not found.above:
                return grant
            found = await self.store.get(Grant, found.above)
        return None

    async def end(self, grant_id: str, reason: str, by: str = "") -> Grant | None:
        """Let a client do nothing more: its refresh and access tokens are good nowhere."""
        grant = await self.store.get(Grant, grant_id)
        if grant is None:
            return None
        await self.store.drop(Grant, grant_id)
        for token_hash in self.bearers.of_grant(grant_id):
            await self.tokens.delete(token_hash)
        self.say(
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

    async def renewed(
        self, token: str, client: Client, jkt: str, resource: str, scope: str
    ) -> Grant:
        """The grant of a refresh token, which is used up by this.

        Raises `OAuthError`: one that was used before ends the grant, for it was stolen once. Where
        the key of the grant is not proved that was not its client, and nothing is used up or ends.
        """
        told = self.seal.open(token, Refresh)
        if told is None:
            raise invalid_grant("This refresh token is none of ours.")
        for _ in range(ATTEMPTS):
            grant, revision = await self.store.seen(Grant, told.grant)
            if grant is None or grant.client_id != client.id or grant.ends < time():
                raise invalid_grant("What this refresh token stood for has ended; sign in again.")
            used = told.generation != grant.generation
            if not used or told.jkt:  # one that was bound is of no use to who copied it
                _check_holds(grant, client, jkt)
            if used:
                await self.end(grant.id, "a refresh token was used twice")
                raise invalid_grant("This refresh token was used before; sign in again.")
            await self._check_stands(grant, jkt)
            if resource and resource != grant.resource:
                raise OAuthError("invalid_target", "This was granted for another resource.")
            less = narrowed(grant.scope, scope)
            after = replace(grant, generation=grant.generation + 1, jkt=jkt)
            if await self.store.swap(grant.id, after, revision):
                return replace(after, scope=less)  # of this token alone: the grant stays whole
        raise OAuthError("temporarily_unavailable", "Try again.", 503)

    async def _check_stands(self, grant: Grant, jkt: str) -> None:
        person = grant.person
        if not await self.accounts.stands(person):
            await self.end(grant.id, "the account is another one now, or none")
            raise invalid_grant("The account is another one now; sign in again.")
        access = self.rule(person, administers=administers(grant.scope))
        if access is None:
            raise invalid_grant("No rule grants you anything here any longer.")
        self._check_bound(access, jkt)

    def _check_bound(self, access: str, jkt: str) -> None:
        if self.declared().access[access].dpop and not jkt:
            raise unbound("What you are granted takes bound tokens only")

    def response(
        self, grant: Grant, *, refreshable: bool = True, until: float = inf
    ) -> dict[str, Any]:
        """The token endpoint's answer, good for no longer than `until`."""
        seconds = int(min(self.lifetimes.access, until - time()))
        told: dict[str, Any] = {
            "access_token": self.access_token(grant, seconds),
            "token_type": "DPoP" if grant.jkt else "Bearer",
            "expires_in": seconds,
            "scope": grant.scope,
        }
        if refreshable:
            told["refresh_token"] = self.seal.close(Refresh(grant.id, grant.generation, grant.jkt))
        return told

    def access_token(self, grant: Grant, seconds: int) -> str:
        """A token for the grant's resource (RFC 9068)."""
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
            **_acted(grant.actors),
            **({"cnf": {"jkt": grant.jkt}} if grant.jkt else {}),
        }
        return self.keys.sign(claims, ACCESS_TOKEN)

    def _say_given(self, grant: Grant, access: str) -> None:
        self.say(
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


def _acted(actors: tuple[str, ...]) -> dict[str, Any]:
    """Who acts, as tokens say it (RFC 8693 section 4.1): each within who acts for it. Pure."""
    told: dict[str, Any] = {}
    for actor in reversed(actors):
        told = {"act": {"sub": actor, **told}}
    return told


def _is_of(grant: Grant, claims: dict[str, Any]) -> bool:
    """Whether a token is of this grant as it is: not of one before it, nor from before its key."""
    told = (claims.get("aud"), claims.get("born", ""))
    return told == (grant.resource, grant.born) and ("cnf" in claims or not grant.jkt)


def _common(grant: Grant, claims: dict[str, Any]) -> str:
    return " ".join(within(grant.scope, str(claims.get("scope", ""))))


def _check_holds(grant: Grant, client: Client, jkt: str) -> None:
    """See that who refreshes holds the key: once bound, always bound.

    A client that proves who it is may change its key; of one that cannot, the key is the proof.
    """
    if grant.jkt and not jkt:
        raise unbound("This refresh token is bound to a key")
    if grant.jkt not in ("", jkt) and client.method == "none":
        raise invalid_grant("This refresh token is bound to another key than was proved.")
