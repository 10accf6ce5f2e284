"""Validation of access tokens for ingress: holder, access rule and resource."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.access.oauth_scopes import ADMINISTER, TOOLS, administers
from toolbus_common.config import Configuration
from toolbus_common.contracts import Bearer, TokenQuery
from toolbus_common.egress.http_messages import HttpError
from toolbus_common.errors import UnauthorizedError, UnavailableError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_oauth.accounts.access_rules import entitled_rule, user_name
from toolbus_oauth.accounts.oidc_providers import ProviderError, Providers
from toolbus_oauth.keys.unverified_jwt import parse_unverified
from toolbus_oauth.server.grants import Grants, TokenError
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.server.scopes import is_toolbus_scope

DAY = 86_400.0
_EXTERNAL_TYPES = ("at+jwt", "application/at+jwt", "jwt", "")


@dataclass(frozen=True, slots=True)
class TokenValidator:
    """Validator of access tokens; it stores the holders of valid tokens in `tb_tokens`."""

    grants: Grants
    providers: Providers
    tokens: Bucket
    config: Callable[[], Configuration]
    resources: Resources

    async def show(self, query: TokenQuery) -> Bearer:
        """Return the holder of a token, and store the holder. Raises `UnauthorizedError`."""
        _, claims = parse_unverified(query.token)
        if claims.get("iss") == self.grants.issuer:
            bearer = await self._from_own_token(query.token)
        else:
            bearer = await self._from_external_token(query.token, claims)
        token_hash = hash_of(key_digest_of(query.token))
        await self.tokens.put(token_hash, bearer.encode())
        if bearer.grant and await self.grants.active(bearer.grant) is None:
            await self.tokens.delete(token_hash)  # the grant ended during validation
            raise UnauthorizedError("The grant of this token has ended; sign in again.")
        return bearer

    async def _from_own_token(self, token: str) -> Bearer:
        try:
            claims, grant = await self.grants.verify_token(token)
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

    async def _from_external_token(self, token: str, unverified: dict[str, Any]) -> Bearer:
        issuers = self.config().issuers
        found = next(
            ((name, each) for name, each in issuers.items() if each.url == unverified.get("iss")),
            None,
        )
        if found is None:
            raise UnauthorizedError(
                "The token's issuer is not configured; an operator can add it under 'issuers'."
            )
        name, issuer = found
        try:
            claims = await self.providers.verified(name, issuer, token)
        except ProviderError as error:
            raise UnauthorizedError(f"The token is invalid: {error}. Request a new one.") from error
        except HttpError as error:
            raise UnavailableError(f"The token's issuer is unavailable: {error}; retry.") from error
        kind = str(parse_unverified(token)[0].get("typ", "")).lower()
        if kind not in _EXTERNAL_TYPES or (kind == "jwt" and {"nonce", "at_hash"} & set(claims)):
            raise UnauthorizedError("This is another kind of token; send an access token.")
        user = user_name(self.config(), name, claims)
        resource = self._resource(claims.get("aud"), issuer.audience)
        scope = self._external_scope(resource, claims)
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
        """Return a keyed digest that identifies a person in audit records."""
        return self.grants.seal.digest(f"{issuer} {user}")

    def _resource(self, audience: Any, config: str) -> str:
        """Return the resource that a token's audience names. Raises `UnauthorizedError`."""
        audiences = audience if isinstance(audience, list) else [audience]
        for each in audiences:
            if isinstance(each, str) and self.resources.exists(each):
                return each
        if config and config in audiences:
            return f"{self.grants.issuer}/mcp"
        raise UnauthorizedError(
            "The token was issued for another service: its aud is not a resource of this one. "
            "Request a token for this one."
        )

    def _scope(self, resource: str, scope: str) -> str:
        valid = self.resources.kept(resource, scope)
        if not valid:
            raise UnauthorizedError("No scope of this token exists any more; sign in again.")
        return valid

    def _external_scope(self, resource: str, claims: dict[str, Any]) -> str:
        """Return the Toolbus scopes of an external token; all scopes if it names none."""
        named = claims.get("scope", claims.get("scp", ""))
        scope = " ".join(map(str, named)) if isinstance(named, list) else str(named)
        if any(is_toolbus_scope(each) for each in scope.split()):
            return self._scope(resource, scope)
        return ADMINISTER if self.resources.administers(resource) else TOOLS

    def _access(self, issuer: str, claims: dict[str, Any], scope: str) -> str:
        subject = (self.config(), issuer, claims)
        access = entitled_rule(*subject, administers=administers(scope))
        if access is None:
            raise UnauthorizedError(
                "You are signed in, but no access rule grants you access here. Ask your operator."
            )
        return access


def _bound_to(claims: dict[str, Any]) -> str:
    """Return the thumbprint of the key that a token is bound to (RFC 9449 section 6), or empty.

    Raises `UnauthorizedError` for another kind of binding, which Toolbus cannot verify.
    """
    if "cnf" not in claims:
        return ""
    bound = claims["cnf"]
    jkt = bound.get("jkt") if isinstance(bound, dict) else None
    if not isinstance(jkt, str) or not jkt:
        raise UnauthorizedError("This token's binding cannot be verified; use DPoP (RFC 9449).")
    return jkt
