"""JWT bearer grant with identity assertions (ID-JAG, RFC 7523)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolbus_common.config import Configuration, Issuer
from toolbus_common.egress.http_messages import HttpError
from toolbus_oauth.accounts.access_rules import user_name
from toolbus_oauth.accounts.oidc_providers import ProviderError, Providers, rule_claims
from toolbus_oauth.accounts.sign_in_plugins import SignInPlugins
from toolbus_oauth.clients.registry import check_confidential
from toolbus_oauth.keys.unverified_jwt import ID_JAG_TYPE, parse_unverified
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.storage.records import AuthorizationRequest, Client, Person, Used
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web.errors import invalid_grant

LONGEST_ID = 256


@dataclass(frozen=True, slots=True)
class AssertionVerifier:
    """Verifier of identity assertions; each assertion is accepted once."""

    issuer: str
    providers: Providers
    brief: Store
    config: Callable[[], Configuration]
    resources: Resources
    plugins: SignInPlugins

    async def redeem(self, assertion: str, client: Client) -> tuple[AuthorizationRequest, Person]:
        """Return the request and person of an assertion. Raises `OAuthError`."""
        check_confidential(client)
        header, unverified = parse_unverified(assertion)
        if str(header.get("typ", "")).lower() != ID_JAG_TYPE:
            raise invalid_grant(f"The assertion's type must be {ID_JAG_TYPE}.")
        name, issuer = self._issuer(unverified)
        try:
            claims = await self.providers.verified(name, issuer, assertion)
        except (ProviderError, HttpError) as error:
            raise invalid_grant(f"The assertion is invalid: {error}. Request a new one.") from error
        await self._check(claims, client)
        named, scopes = claims.get("resource", ""), claims.get("scope", "")
        resource = self.resources.resolve(named if isinstance(named, str) else "?")
        scope = self.resources.grant_scopes(
            client, resource, scopes if isinstance(scopes, str) else "?"
        )
        auth_request = AuthorizationRequest(
            client.id, client.name, "", "", "", scope, resource, client.registered
        )
        person = Person(name, user_name(self.config(), name, claims), rule_claims(claims))
        if refusal := await self.plugins.refusal(person):
            raise invalid_grant(f"{refusal}. Ask an operator about the plugin.")
        return auth_request, person

    async def _check(self, claims: dict[str, Any], client: Client) -> None:
        audience, jti = claims.get("aud"), claims.get("jti")
        if audience not in (self.issuer, [self.issuer]):
            raise invalid_grant(
                "The assertion was issued for another server: its aud must be this issuer."
            )
        if claims.get("client_id") != client.id or not isinstance(claims.get("sub"), str):
            raise invalid_grant("The assertion was issued for another client, or it has no sub.")
        if not isinstance(jti, str) or not 0 < len(jti) <= LONGEST_ID:
            raise invalid_grant(
                f"The assertion must have a jti of at most {LONGEST_ID} characters."
            )
        if not await self.brief.swap(f"jag {claims['iss']} {jti}", Used(), 0):
            raise invalid_grant("This assertion was used before; create a new one.")

    def _issuer(self, claims: dict[str, Any]) -> tuple[str, Issuer]:
        for name, issuer in self.config().issuers.items():
            if issuer.url == claims.get("iss"):
                return name, issuer
        raise invalid_grant(
            "The assertion's issuer is not configured; an operator can add it under 'issuers'."
        )
