"""A token that is shown: whose it is, which rule covers them, and where it is good."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.access.oauth_scopes import ADMINISTER, TOOLS, administers
from toolbus_common.config import Configuration
from toolbus_common.contracts import Bearer, TokenQuery
from toolbus_common.errors import UnauthorizedError, UnavailableError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_oauth.accounts.access_rules import called, entitling
from toolbus_oauth.accounts.oidc_providers import ProviderError, Providers
from toolbus_oauth.keys.unverified_jwt import peeked
from toolbus_oauth.server.grants import Grants, TokenError
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.server.scopes import is_ours
from toolbus_oauth.storage.http_client import FetchError

DAY = 86_400.0
_FOREIGN_TYPES = ("at+jwt", "application/at+jwt", "jwt", "")


@dataclass(frozen=True, slots=True)
class Showing:
    """Judges tokens, and writes down who holds the good ones."""

    grants: Grants
    providers: Providers
    tokens: Bucket
    declared: Callable[[], Configuration]
    resources: Resources

    async def show(self, asked: TokenQuery) -> Bearer:
        """Who holds this token. Raises `UnauthorizedError`."""
        _, claims = peeked(asked.token)
        if claims.get("iss") == self.grants.issuer:
            bearer = await self._own(asked.token)
        else:
            bearer = await self._foreign(asked.token, claims)
        token_hash = hash_of(key_digest_of(asked.token))
        await self.tokens.put(token_hash, bearer.encode())
        if bearer.grant and await self.grants.standing(bearer.grant) is None:
            await self.tokens.delete(token_hash)  # it was ended while we looked
            raise UnauthorizedError("What this token stood for has ended; sign in again.")
        return bearer

    async def _own(self, token: str) -> Bearer:
        try:
            claims, grant = await self.grants.of_token(token)
        except TokenError as error:
            raise UnauthorizedError(str(error)) from error
        scope = self._scope(grant.resource, grant.scope)
        return Bearer(
            access=self._access(grant.person.issuer, grant.person.claims, scope),
            user=grant.person.user,
            client=grant.client_id,
            resource=grant.resource,
            scope=scope,
            ends=float(claims["exp"]),
            grant=grant.id,
            handle=self._handle(grant.person.issuer, grant.person.user),
            actors=grant.actors,
            jkt=_bound_to(claims),
        )

    async def _foreign(self, token: str, told: dict[str, Any]) -> Bearer:
        issuers = self.declared().issuers
        found = next(
            ((name, each) for name, each in issuers.items() if each.url == told.get("iss")), None
        )
        if found is None:
            raise UnauthorizedError("This token is of an issuer that is not declared here.")
        name, issuer = found
        try:
            claims = await self.providers.verified(name, issuer, token)
        except ProviderError as error:
            raise UnauthorizedError(f"This token is not taken: {error}.") from error
        except FetchError as error:
            raise UnavailableError(f"The token's issuer cannot be asked: {error}.") from error
        kind = str(peeked(token)[0].get("typ", "")).lower()
        if kind not in _FOREIGN_TYPES or (kind == "jwt" and {"nonce", "at_hash"} & set(claims)):
            raise UnauthorizedError("This is no access token.")
        user = called(self.declared(), name, claims)
        resource = self._meant(claims.get("aud"), issuer.audience)
        scope = self._foreign_scope(resource, claims)
        return Bearer(
            access=self._access(name, claims, scope),
            user=user,
            handle=self._handle(name, user),
            client=str(claims.get("client_id") or claims.get("azp") or name),
            resource=resource,
            scope=scope,
            ends=min(float(claims["exp"]), time() + DAY),
            jkt=_bound_to(claims),
        )

    def _handle(self, issuer: str, user: str) -> str:
        """The same for somebody each time, and no name to who has not our key."""
        return self.grants.seal.digest(f"{issuer} {user}")

    def _meant(self, audience: Any, declared: str) -> str:
        """The resource of ours that a token is for. Raises `UnauthorizedError`."""
        listed = audience if isinstance(audience, list) else [audience]
        for each in listed:
            if isinstance(each, str) and self.resources.known(each):
                return each
        if declared and declared in listed:
            return f"{self.grants.issuer}/mcp"
        raise UnauthorizedError("This token was made for somebody else: its aud is not ours.")

    def _scope(self, resource: str, told: str) -> str:
        scope = self.resources.kept(resource, told)
        if not scope:
            raise UnauthorizedError("Nothing is left of what this token is for; sign in anew.")
        return scope

    def _foreign_scope(self, resource: str, claims: dict[str, Any]) -> str:
        """Of what another issuer names, scopes of ours count; where it names none, all."""
        named = claims.get("scope", claims.get("scp", ""))
        told = " ".join(map(str, named)) if isinstance(named, list) else str(named)
        if any(is_ours(each) for each in told.split()):
            return self._scope(resource, told)
        return ADMINISTER if self.resources.administers(resource) else TOOLS

    def _access(self, issuer: str, claims: dict[str, Any], scope: str) -> str:
        about = (self.declared(), issuer, claims)
        access = entitling(*about, administers=administers(scope))
        if access is None:
            raise UnauthorizedError("You are who you say, but no rule grants you anything here.")
        return access


def _bound_to(claims: dict[str, Any]) -> str:
    """The thumbprint of the key a token is bound to (RFC 9449 section 6); empty: to none.

    Raises `UnauthorizedError` where it is bound to something else, which nobody here would check.
    """
    if "cnf" not in claims:
        return ""
    bound = claims["cnf"]
    jkt = bound.get("jkt") if isinstance(bound, dict) else None
    if not isinstance(jkt, str) or not jkt:
        raise UnauthorizedError("This token is bound to what cannot be checked here: use DPoP.")
    return jkt
