"""Identity assertions (ID-JAG) from a person's OpenID provider for upstream servers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

from msgspec.structs import replace

from toolbus_common.config import Configuration, Issuer, Server
from toolbus_common.config.servers.oauth import ENTERPRISE
from toolbus_common.egress.http_messages import HttpError
from toolbus_common.secrets import SecretError
from toolbus_oauth.accounts.access_rules import matching_rule, user_name
from toolbus_oauth.accounts.oidc_providers import ProviderError, Providers
from toolbus_oauth.clients.registry import EXCHANGE
from toolbus_oauth.keys.unverified_jwt import ID_JAG_TYPE, parse_unverified
from toolbus_oauth.oauth_client.identity import ClientIdentity, RemoteEndpoint, TokenRequestError
from toolbus_oauth.oauth_client.token_client import TokenClient, is_valid_token
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.records import ProviderTokens
from toolbus_oauth.upstreams.connections.renewal_lock import RenewalLock
from toolbus_oauth.upstreams.discovery import AuthorizationServer, DiscoveryError

ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - the type of one
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
MIN_SECONDS = 30.0  # an ID token with less time left is renewed if possible


class SignInRequiredError(Exception):
    """The provider issues no assertion for this person until the person signs in there."""


@dataclass(frozen=True, slots=True)
class IdentityAssertions:
    """Store of ID tokens from sign-ins, which are exchanged for identity assertions.

    ID tokens are stored only for people whom an access rule matches, and only of providers that a
    server uses.
    """

    store: Store
    providers: Providers
    tokens: TokenClient
    renewal_lock: RenewalLock
    config: Callable[[], Configuration]

    async def keep(
        self, name: str, issuer: Issuer, claims: Mapping[str, Any], response: Any
    ) -> None:
        """Store the ID token and refresh token of a sign-in, if a server can use them."""
        config = self.config()
        if not _is_named(name, config) or matching_rule(config, name, claims) is None:
            return
        refresh = response.get("refresh_token")
        record = ProviderTokens(
            name, issuer.url, issuer.client_id, user_name(config, name, claims), str(claims["sub"]),
            str(response["id_token"]), float(claims["exp"]),
            str(refresh) if is_valid_token(refresh) else "",
        )  # fmt: skip
        await self.store.put(_key(name, record.user), record)

    async def assertion_for(
        self, server: Server, user: str, found: AuthorizationServer, scopes: tuple[str, ...]
    ) -> str:
        """Return an ID-JAG for a person at an upstream's authorization server.

        Raises:
            SignInRequiredError: the person must first sign in at the provider.
            DiscoveryError: no client is configured for the authorization server.
            TokenRequestError: the provider denies the assertion.

        """
        name, config = server.oauth.provider if server.oauth else "", self.config()
        issuer = config.issuers.get(name)
        client = server.oauth.clients.get(found.issuer) if server.oauth else None
        if issuer is None or client is None:
            raise DiscoveryError(
                f"no client is configured for {found.issuer}, to use assertions of '{name}'"
            )
        stored = await self._valid_token(name, issuer, user)
        form = {
            "grant_type": EXCHANGE,
            "requested_token_type": ID_JAG,
            "subject_token": stored.token,
            "subject_token_type": ID_TOKEN,
            "audience": found.issuer,
            "resource": found.resource or server.oauth_url,
            **({"scope": " ".join(scopes)} if scopes else {}),
        }
        try:
            response = await self.tokens.send(*await self._endpoint(name, issuer), form)
        except TokenRequestError as error:
            if error.code == "invalid_grant":
                await self.store.drop(ProviderTokens, _key(name, user))
                raise SignInRequiredError from error
            raise TokenRequestError(
                error.code, f"'{name}' denies the identity assertion: {error}"
            ) from error
        return _checked_assertion(response, name, found.issuer, client.id)

    async def forget(self, user: str) -> None:
        """Delete a person's stored ID tokens."""
        for each in await self.store.every(ProviderTokens):
            if each.user == user:
                await self.store.drop(ProviderTokens, _key(each.provider, user))

    async def _valid_token(self, name: str, issuer: Issuer, user: str) -> ProviderTokens:
        """Return a person's stored ID token, renewed if needed. Raises `SignInRequiredError`."""
        stored = await self.store.get(ProviderTokens, _key(name, user))
        expected = (issuer.url, issuer.client_id)
        if stored is None or (stored.url, stored.client_id) != expected:
            raise SignInRequiredError
        if stored.ends > time() + MIN_SECONDS:
            return stored
        async with self.renewal_lock.hold(f"id token {_key(name, user)}"):
            stored = await self.store.get(ProviderTokens, _key(name, user))
            if stored is not None and stored.ends > time() + MIN_SECONDS:
                return stored  # already renewed by another task or replica
            if stored is None or not stored.refresh:
                await self.store.drop(ProviderTokens, _key(name, user))
                raise SignInRequiredError
            return await self._renewed(name, issuer, stored)

    async def _renewed(self, name: str, issuer: Issuer, stored: ProviderTokens) -> ProviderTokens:
        form = {"grant_type": "refresh_token", "refresh_token": stored.refresh}
        try:
            response = await self.tokens.send(*await self._endpoint(name, issuer), form)
            claims = await self.providers.verified_id_token(name, issuer, response)
        except TokenRequestError as error:
            if error.for_good:
                await self.store.drop(ProviderTokens, _key(name, stored.user))
                raise SignInRequiredError from error
            raise
        except (ProviderError, HttpError) as error:
            raise TokenRequestError("", f"'{name}' is unavailable: {error}") from error
        if claims["sub"] != stored.subject:
            raise TokenRequestError("", f"'{name}' returned an ID token of another person")
        refresh = response.get("refresh_token")
        renewed = replace(
            stored,
            token=str(response["id_token"]),
            ends=float(claims["exp"]),
            refresh=str(refresh) if is_valid_token(refresh) else stored.refresh,
        )
        await self.store.put(_key(name, stored.user), renewed)
        return renewed

    async def _endpoint(self, name: str, issuer: Issuer) -> tuple[RemoteEndpoint, ClientIdentity]:
        """Return the provider's token endpoint, and the identity of Toolbus as its client."""
        try:
            endpoint = await self.providers.token_endpoint(issuer)
            return endpoint, await self.providers.client_at(issuer)
        except (ProviderError, HttpError, SecretError) as error:
            raise TokenRequestError("", f"'{name}' is unavailable: {error}") from error


def _is_named(name: str, config: Configuration) -> bool:
    """Return whether a configured server uses assertions of this provider."""
    configured = (each.oauth for each in config.servers.values() if each.oauth is not None)
    return any(each.grant == ENTERPRISE and each.provider == name for each in configured)


def _checked_assertion(
    response: Mapping[str, Any], name: str, audience: str, client_id: str
) -> str:
    """Return the ID-JAG of a response. Raises `TokenRequestError` if it is invalid."""
    token = response.get("access_token")
    if (
        response.get("issued_token_type") != ID_JAG
        or not isinstance(token, str)
        or not is_valid_token(token)
    ):
        raise TokenRequestError("", f"'{name}' returned no ID-JAG")
    header, claims = parse_unverified(token)
    matches = claims.get("aud") in (audience, [audience]) and claims.get("client_id") == client_id
    if str(header.get("typ", "")).lower() != ID_JAG_TYPE or not matches:
        raise TokenRequestError("", f"'{name}' returned an ID-JAG for another audience or client")
    return token


def _key(provider: str, user: str) -> str:
    return f"{provider} {user}"
