"""A company's word that a program may act for somebody (ID-JAG), exchanged for a token of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolbus_common.config import Configuration, Issuer
from toolbus_oauth.accounts.access_rules import called
from toolbus_oauth.accounts.oidc_providers import ProviderError, Providers, carried
from toolbus_oauth.clients.registry import check_proves
from toolbus_oauth.keys.unverified_jwt import TYPE, peeked
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.storage.http_client import FetchError
from toolbus_oauth.storage.records import Client, Person, Used, Wish
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web.errors import invalid_grant

LONGEST_ID = 256


@dataclass(frozen=True, slots=True)
class Assertions:
    """Judges them."""

    issuer: str
    providers: Providers
    brief: Store
    declared: Callable[[], Configuration]
    resources: Resources

    async def redeem(self, assertion: str, client: Client) -> tuple[Wish, Person]:
        """For whom this client may act, and where. Raises `OAuthError`."""
        check_proves(client)
        header, told = peeked(assertion)
        if str(header.get("typ", "")).lower() != TYPE:
            raise invalid_grant(f"The assertion's type must be {TYPE}.")
        name, issuer = self._issuer(told)
        try:
            claims = await self.providers.verified(name, issuer, assertion)
        except (ProviderError, FetchError) as error:
            raise invalid_grant(f"The assertion is not taken: {error}.") from error
        await self._check(claims, client)
        told, asked = claims.get("resource", ""), claims.get("scope", "")
        resource = self.resources.meant(told if isinstance(told, str) else "?")
        scope = self.resources.given(client, resource, asked if isinstance(asked, str) else "?")
        wish = Wish(client.id, client.name, "", "", "", scope, resource, client.registered)
        return wish, Person(name, called(self.declared(), name, claims), carried(claims))

    async def _check(self, claims: dict[str, Any], client: Client) -> None:
        audience, jti = claims.get("aud"), claims.get("jti")
        if audience not in (self.issuer, [self.issuer]):
            raise invalid_grant("The assertion was made for another server: its aud is not ours.")
        if claims.get("client_id") != client.id or not isinstance(claims.get("sub"), str):
            raise invalid_grant("The assertion was made for another client, or names nobody.")
        if not isinstance(jti, str) or not 0 < len(jti) <= LONGEST_ID:
            raise invalid_grant("The assertion needs a jti.")
        if not await self.brief.swap(f"jag {claims['iss']} {jti}", Used(), 0):
            raise invalid_grant("This assertion was used before.")

    def _issuer(self, told: dict[str, Any]) -> tuple[str, Issuer]:
        for name, issuer in self.declared().issuers.items():
            if issuer.url == told.get("iss"):
                return name, issuer
        raise invalid_grant("The assertion is of an issuer that is not declared here.")
