"""People whom their provider vouches for elsewhere (ID-JAG): its word is asked for each server."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

from msgspec.structs import replace

from toolbus_common.config import Configuration, Issuer, Server
from toolbus_common.config.servers.oauth import ENTERPRISE
from toolbus_common.secrets import SecretError, Secrets, filled
from toolbus_oauth.accounts.access_rules import called, covering
from toolbus_oauth.accounts.oidc_providers import ProviderError, Providers
from toolbus_oauth.clients.registry import EXCHANGE
from toolbus_oauth.keys.unverified_jwt import TYPE, peeked
from toolbus_oauth.storage.http_client import FetchError
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.client_identity import Identity
from toolbus_oauth.upstreams.connections.records import Vouched
from toolbus_oauth.upstreams.connections.renewal_lock import Turns
from toolbus_oauth.upstreams.discovery import DiscoveryError, Found
from toolbus_oauth.upstreams.token_client import RefusedError, TokenEndpoint, Tokens, fits

ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - the type of one
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
LEAST_SECONDS = 30.0  # an ID token that ends sooner is renewed, if it can be


class UnvouchedError(Exception):
    """Nobody vouches for this person now: let them sign in at their provider."""


@dataclass(frozen=True, slots=True)
class Vouching:
    """Keeps what providers gave of those who signed in, and has them vouch for them.

    Only for people whom a rule covers, and only of a provider that some server names.
    """

    store: Store
    providers: Providers
    tokens: Tokens
    turns: Turns
    secrets: Secrets
    declared: Callable[[], Configuration]

    async def keep(self, name: str, issuer: Issuer, claims: Mapping[str, Any], told: Any) -> None:
        """Keep what came when somebody signed in."""
        declared = self.declared()
        if not _is_named(name, declared) or covering(declared, name, claims) is None:
            return
        refresh = told.get("refresh_token")
        kept = Vouched(
            name, issuer.url, issuer.client_id, called(declared, name, claims), str(claims["sub"]),
            str(told["id_token"]), float(claims["exp"]), str(refresh) if fits(refresh) else "",
        )  # fmt: skip
        await self.store.put(_key(name, kept.user), kept)

    async def word(self, server: Server, user: str, found: Found, scopes: tuple[str, ...]) -> str:
        """The provider's word that we may act for them there.

        Raises:
            UnvouchedError: they must sign in there first.
            DiscoveryError: this server's authorization server is none that was declared.
            RefusedError: the provider does not vouch for them there.

        """
        name, declared = server.oauth.provider if server.oauth else "", self.declared()
        issuer = declared.issuers.get(name)
        client = server.oauth.clients.get(found.issuer) if server.oauth else None
        if issuer is None or client is None:
            raise DiscoveryError(
                f"no client is declared for {found.issuer}, where {name} is to vouch for people"
            )
        kept = await self._kept(name, issuer, user)
        form = {
            "grant_type": EXCHANGE,
            "requested_token_type": ID_JAG,
            "subject_token": kept.token,
            "subject_token_type": ID_TOKEN,
            "audience": found.issuer,
            "resource": found.resource or server.oauth_url,
            **({"scope": " ".join(scopes)} if scopes else {}),
        }
        try:
            told = await self.tokens.told(*await self._at(name, issuer), form)
        except RefusedError as error:
            if error.code == "invalid_grant":
                await self.store.drop(Vouched, _key(name, user))
                raise UnvouchedError from error
            raise RefusedError(error.code, f"{name} does not vouch for them: {error}") from error
        return _word(told, name, found.issuer, client.id)

    async def forget(self, user: str) -> None:
        """Keep nothing of somebody any more."""
        for each in await self.store.every(Vouched):
            if each.user == user:
                await self.store.drop(Vouched, _key(each.provider, user))

    async def _kept(self, name: str, issuer: Issuer, user: str) -> Vouched:
        """What is kept of them, renewed if it must be."""
        kept = await self.store.get(Vouched, _key(name, user))
        fitting = (issuer.url, issuer.client_id)
        if kept is None or (kept.url, kept.client_id) != fitting:
            raise UnvouchedError
        if kept.ends > time() + LEAST_SECONDS:
            return kept
        async with self.turns.alone(f"vouched {_key(name, user)}"):
            kept = await self.store.get(Vouched, _key(name, user))
            if kept is not None and kept.ends > time() + LEAST_SECONDS:
                return kept  # somebody else has been faster
            if kept is None or not kept.refresh:
                await self.store.drop(Vouched, _key(name, user))
                raise UnvouchedError
            return await self._renewed(name, issuer, kept)

    async def _renewed(self, name: str, issuer: Issuer, kept: Vouched) -> Vouched:
        form = {"grant_type": "refresh_token", "refresh_token": kept.refresh}
        try:
            told = await self.tokens.told(*await self._at(name, issuer), form)
            token = str(told.get("id_token", ""))
            claims = await self.providers.verified(name, issuer, token)
        except RefusedError as error:
            if error.for_good:
                await self.store.drop(Vouched, _key(name, kept.user))
                raise UnvouchedError from error
            raise
        except (ProviderError, FetchError) as error:
            raise RefusedError("", f"{name} cannot be asked: {error}") from error
        if claims.get("sub") != kept.subject or claims.get("aud") != kept.client_id:
            raise RefusedError("", f"{name} answers with an ID token of somebody else")
        refresh = told.get("refresh_token")
        renewed = replace(
            kept,
            token=token,
            ends=float(claims["exp"]),
            refresh=str(refresh) if fits(refresh) else kept.refresh,
        )
        await self.store.put(_key(name, kept.user), renewed)
        return renewed

    async def _at(self, name: str, issuer: Issuer) -> tuple[TokenEndpoint, Identity]:
        """The provider's token endpoint, and who we are there."""
        try:
            url, named = await self.providers.token_endpoint(issuer)
            secret = filled(issuer.secret, await self.secrets.read([issuer.secret]))
        except (ProviderError, FetchError, SecretError) as error:
            raise RefusedError("", f"{name} cannot be asked: {error}") from error
        method = "client_secret_basic" if secret else "none"
        return TokenEndpoint(url, issuer.url, named), Identity(issuer.client_id, method, secret)


def _is_named(name: str, declared: Configuration) -> bool:
    """Whether some server has its people vouched for by this provider. Pure."""
    ways = (each.oauth for each in declared.servers.values() if each.oauth is not None)
    return any(each.grant == ENTERPRISE and each.provider == name for each in ways)


def _word(told: Mapping[str, Any], name: str, audience: str, client_id: str) -> str:
    """An ID-JAG for this authorization server and us alone: nothing else is sent there. Pure."""
    token = told.get("access_token")
    if told.get("issued_token_type") != ID_JAG or not isinstance(token, str) or not fits(token):
        raise RefusedError("", f"{name} answers with no ID-JAG")
    header, claims = peeked(token)
    fit = claims.get("aud") in (audience, [audience]) and claims.get("client_id") == client_id
    if str(header.get("typ", "")).lower() != TYPE or not fit:
        raise RefusedError("", f"{name} answers with an ID-JAG for somebody else")
    return token


def _key(provider: str, user: str) -> str:
    return f"{provider} {user}"
