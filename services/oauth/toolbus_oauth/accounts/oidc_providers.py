"""OpenID providers: cached metadata and keys, token verification, and sign-in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_urlsafe
from time import monotonic, time
from typing import Any

import msgspec
from authlib.oauth2.claims import JWTClaims
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError
from joserfc.jwk import KeySet

from toolbus_common import strict_json
from toolbus_common.config import Configuration, Issuer
from toolbus_common.crypto.jws import JwsError
from toolbus_common.egress import EgressError, target_of
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest, HttpResponse
from toolbus_common.secrets import SecretError, Secrets, filled
from toolbus_oauth.accounts.access_rules import user_name
from toolbus_oauth.keys.unverified_jwt import parse_unverified
from toolbus_oauth.keys.verified_jwt import parse_verified
from toolbus_oauth.oauth_client.authorization_url import authorization_url
from toolbus_oauth.oauth_client.identity import ClientIdentity, RemoteEndpoint, TokenRequestError
from toolbus_oauth.oauth_client.token_client import TokenClient, is_valid_token
from toolbus_oauth.storage.records import PendingSignIn, Person, Ticket, Used
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web.errors import PageError
from toolbus_oauth.web.rate_limit import RateLimit
from toolbus_oauth.web.request import Fields

CALLBACK = "/oauth/callback/"
CACHE_SECONDS = 3600.0
REFETCH_SECONDS = 30.0  # minimum age before keys are fetched again for an unknown key id
SIGN_IN_SECONDS = 600.0
MAX_PER_MINUTE = 1200
LEEWAY = 30.0
MAX_CLAIMS = 4096  # maximum size of the claims in a session, in bytes
_OK = 200
OnSignIn = Callable[[str, Issuer, dict[str, Any], dict[str, Any]], Awaitable[None]]
_OF_ANOTHER = "its response came from another issuer"
_OF_ANOTHER_SIGN_IN = "its ID token was not issued for this sign-in"
_PROBLEMS = {
    "exp": "it has no valid exp",
    "nbf": "it is not valid yet",
    "iss": "its iss differs from its issuer",
    "sub": "its ID token has no sub",
    **dict.fromkeys(("aud", "azp", "nonce", "at_hash"), _OF_ANOTHER_SIGN_IN),
}


class ProviderError(Exception):
    """A provider or its token cannot be used; the message is a clause with the reason."""


@dataclass(slots=True)
class _Metadata:
    document: dict[str, Any]
    keys: KeySet
    fetched: float


@dataclass(slots=True)
class Providers:
    """Client of the configured OpenID providers."""

    issuer: str
    brief: Store
    fetcher: HttpClient
    config: Callable[[], Configuration]
    named: Callable[[Issuer], bool]
    secrets: Secrets
    tokens: TokenClient
    on_sign_in: OnSignIn | None = None  # called with the token response of each sign-in
    rate_limit: RateLimit = field(default_factory=lambda: RateLimit(MAX_PER_MINUTE))
    _cached: dict[str, _Metadata] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the names of the providers at which people can sign in."""
        return [name for name, each in self.config().issuers.items() if each.client_id]

    async def start_sign_in(self, name: str, ticket: Ticket) -> str:
        """Return the provider's URL at which a person signs in. Raises `PageError`."""
        issuer = self._issuer(name)
        self.rate_limit.keep()
        verifier, nonce, state = (token_urlsafe(32) for _ in range(3))
        try:
            document = (await self._provider(name, issuer)).document
            url = authorization_url(
                str(document.get("authorization_endpoint")), issuer.client_id, verifier,
                redirect_uri=self._redirect(name), scope=" ".join(issuer.scopes), state=state,
                nonce=nonce,
            )  # fmt: skip
        except (ProviderError, ValueError) as error:
            raise PageError(
                f"The provider '{name}' cannot be used now: {error}. Try again later.", 502
            ) from error
        pending = PendingSignIn(ticket, name, verifier, nonce, time() + SIGN_IN_SECONDS)
        await self.brief.put(state, pending)
        return url

    async def take_pending(self, state: str) -> PendingSignIn:
        """Consume a state value and return its pending sign-in. Raises `PageError` if invalid."""
        pending = await self.brief.get(PendingSignIn, state) if state else None
        if pending is None or pending.expires < time():
            raise PageError(
                "This sign-in is unknown or has expired. Restart the sign-in from your application."
            )
        if not await self.brief.swap(f"state {state}", Used(), 0):
            raise PageError(
                "This sign-in was already completed. Restart the sign-in from your application."
            )
        return pending

    async def finish_sign_in(self, pending: PendingSignIn, path: str, query: Fields) -> Person:
        """Return the person who signed in at the provider. Raises `PageError`.

        `path` is the request's path; it must be the path of this provider's redirect URI.
        """
        issuer = self._issuer(pending.issuer)
        try:
            cached = await self._provider(pending.issuer, issuer)
            _check_sender(cached.document, query, own=path == f"{CALLBACK}{pending.issuer}")
            claims = await self._signed_in(pending, issuer, query.get("code", ""))
        except (ProviderError, TokenRequestError, HttpError, SecretError) as error:
            raise PageError(
                f"The provider '{pending.issuer}' cannot be used now: {error}. Try again later.",
                502,
            ) from error
        user = user_name(self.config(), pending.issuer, claims)
        return Person(pending.issuer, user, rule_claims(claims))

    async def verified(self, name: str, issuer: Issuer, token: str) -> dict[str, Any]:
        """Return the claims of a token that its issuer signed and that is valid now.

        Only `iss`, `exp` and `nbf` are checked; the caller must check the other claims. Raises
        `ProviderError`.
        """
        return (await self._verified(name, issuer, token))[1]

    async def verified_id_token(
        self, name: str, issuer: Issuer, response: Mapping[str, Any], nonce: str = ""
    ) -> dict[str, Any]:
        """Return the claims of the ID token in a token response (OpenID Connect Core 3.1.3.7).

        The token's audience must be this client alone. If `nonce` is not empty, the token must
        contain it. Raises `ProviderError`.
        """
        id_token = response.get("id_token")
        if not isinstance(id_token, str):
            raise ProviderError("its response has no ID token")
        token = response.get("access_token")
        if token is not None and not is_valid_token(token):
            raise ProviderError("its response has an access token that is not valid")
        header, claims = await self._verified(name, issuer, id_token)
        params = {"client_id": issuer.client_id, "nonce": nonce, "access_token": token}
        audience = claims.get("aud")
        if audience not in (issuer.client_id, [issuer.client_id]):  # Authlib also accepts others
            raise ProviderError(_OF_ANOTHER_SIGN_IN)
        if not isinstance(claims.get("at_hash") or "", str):  # else Authlib fails
            raise ProviderError(_OF_ANOTHER_SIGN_IN)
        _check_claims(CodeIDToken(claims, header, params=params))
        return claims

    async def _verified(
        self, name: str, issuer: Issuer, token: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        header, _ = parse_unverified(token)
        if header.get("alg") not in issuer.algorithms:
            raise ProviderError("its signature algorithm is not configured for its issuer")
        cached = await self._provider(name, issuer)
        if (
            not _has(cached.keys, header.get("kid"))
            and monotonic() - cached.fetched > REFETCH_SECONDS
        ):
            cached = await self._provider(name, issuer, refetch=True)
        try:
            header, claims = parse_verified(token, cached.keys, issuer.algorithms)
        except JwsError as error:
            raise ProviderError("its signature does not match a key of its issuer") from error
        expected = {"essential": True, "value": cached.document["issuer"]}
        # Other claims are not checked: some issuers send access tokens with a future `iat` or a
        # numeric `sub`.
        checked = {name: claims[name] for name in ("exp", "iss", "nbf") if name in claims}
        _check_claims(JWTClaims(checked, header, {"exp": {"essential": True}, "iss": expected}))
        return header, claims

    async def client_at(self, issuer: Issuer) -> ClientIdentity:
        """Return the identity of Toolbus as a client of a provider. Raises `SecretError`."""
        secret = filled(issuer.secret, await self.secrets.read([issuer.secret]))
        return ClientIdentity(issuer.client_id, "client_secret_basic" if secret else "none", secret)

    async def token_endpoint(self, issuer: Issuer) -> RemoteEndpoint:
        """Return a provider's token endpoint.

        Raises `ProviderError` or `HttpError`.
        """
        cached = next((each for each in self._cached.values() if _is_of(each, issuer)), None)
        document = cached.document if cached is not None else await self._described(issuer)
        url = str(document.get("token_endpoint"))
        return RemoteEndpoint(url, issuer.url, self._is_named(url, issuer))

    async def _signed_in(self, pending: PendingSignIn, issuer: Issuer, code: str) -> dict[str, Any]:
        """Exchange a code for an ID token and return its claims."""
        if not code:
            raise ProviderError("it returned no authorization code")
        cached = await self._provider(pending.issuer, issuer)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect(pending.issuer),
            "code_verifier": pending.verifier,
        }
        url = str(cached.document.get("token_endpoint"))
        endpoint = RemoteEndpoint(url, issuer.url, self._is_named(url, issuer))
        response = await self.tokens.send(endpoint, await self.client_at(issuer), form)
        claims = await self.verified_id_token(pending.issuer, issuer, response, pending.nonce)
        if self.on_sign_in is not None:
            await self.on_sign_in(pending.issuer, issuer, claims, response)
        return claims

    async def _provider(self, name: str, issuer: Issuer, *, refetch: bool = False) -> _Metadata:
        cached = self._cached.get(f"{name} {issuer.url}")
        if cached is not None and not refetch and monotonic() - cached.fetched < CACHE_SECONDS:
            return cached
        try:
            found = await self._fetched(issuer)
        except (HttpError, ProviderError) as error:
            if cached is None:
                raise ProviderError(str(error)) from error
            # Use the cached metadata, and fetch again after `REFETCH_SECONDS`.
            cached.fetched = monotonic() - CACHE_SECONDS + REFETCH_SECONDS
            return cached
        self._cached[f"{name} {issuer.url}"] = found
        return found

    async def _described(self, issuer: Issuer) -> dict[str, Any]:
        where = get_well_known_url(issuer.url, external=True)
        request = HttpRequest("GET", where, operator_named=self.named(issuer))
        document = _object(await self.fetcher.send(request))
        if document.get("issuer") != issuer.url:
            raise ProviderError("its metadata has another issuer")
        return document

    async def _fetched(self, issuer: Issuer) -> _Metadata:
        document = await self._described(issuer)
        keys_at = str(document.get("jwks_uri"))
        named = self._is_named(keys_at, issuer)
        response = await self.fetcher.send(HttpRequest("GET", keys_at, operator_named=named))
        return _Metadata(document, _keys(_object(response)), monotonic())

    def _redirect(self, name: str) -> str:
        """Return the provider's own redirect URI, which prevents mix-up attacks without `iss`."""
        return f"{self.issuer}{CALLBACK}{name}"

    def _is_named(self, url: str, issuer: Issuer) -> bool:
        """Return whether a URL is on the host that an operator configured for the provider."""
        try:
            return target_of(url) == target_of(issuer.url) and self.named(issuer)
        except EgressError:
            return False

    def _issuer(self, name: str) -> Issuer:
        issuer = self.config().issuers.get(name)
        if issuer is None or not issuer.client_id:
            raise PageError("This provider is not configured for sign-in. Ask your operator.")
        return issuer


def rule_claims(claims: dict[str, Any]) -> dict[str, Any]:
    """Return the claims that access rules can match: scalars and lists of strings, bounded."""
    plain = {
        name: value
        for name, value in claims.items()
        if isinstance(value, str | bool | int)
        or (isinstance(value, list) and all(isinstance(each, str) for each in value))
    }
    selected: dict[str, Any] = {}
    for name in sorted(plain, key=lambda each: (each != "sub", each)):
        if len(msgspec.json.encode({**selected, name: plain[name]})) <= MAX_CLAIMS:
            selected[name] = plain[name]
    return selected


def _check_sender(document: dict[str, Any], query: Fields, *, own: bool) -> None:
    """Check that the response came from the requested provider (RFC 9207) at its redirect URI."""
    iss = query.get("iss")
    if iss is None and document.get("authorization_response_iss_parameter_supported") is True:
        raise ProviderError("its response has no iss")
    if not own or (iss is not None and iss != document["issuer"]):
        raise ProviderError(_OF_ANOTHER)


def _check_claims(claims: JWTClaims) -> None:
    """Check the times and the expected claims of a token. Raises `ProviderError`."""
    try:
        claims.validate(leeway=LEEWAY)
    except ExpiredTokenError as error:
        raise ProviderError("it has expired") from error
    except ClaimError as error:
        name = error.claim.partition(",")[0]
        raise ProviderError(_PROBLEMS.get(name, f"its {name} is missing or not valid")) from error


def _object(found: HttpResponse) -> dict[str, Any]:
    if found.status != _OK:
        raise ProviderError(f"it responds with HTTP {found.status}")
    try:
        return strict_json.members(found.body)
    except strict_json.StrictJSONError as error:
        raise ProviderError("its response is not a JSON object") from error


def _keys(document: dict[str, Any]) -> KeySet:
    """Return the public signing keys of a JWK set; other keys are ignored."""
    listed = document.get("keys")
    usable = [
        each
        for each in (listed if isinstance(listed, list) else [])[:64]
        if isinstance(each, dict)
        and each.get("kty") in ("RSA", "EC", "OKP")
        and each.get("use", "sig") == "sig"
    ]
    try:
        return KeySet.import_key_set({"keys": usable})
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ProviderError("its keys are invalid") from error


def _is_of(cached: _Metadata, issuer: Issuer) -> bool:
    """Return whether cached metadata belongs to the issuer and has not expired."""
    return cached.document["issuer"] == issuer.url and monotonic() - cached.fetched < CACHE_SECONDS


def _has(keys: KeySet, kid: Any) -> bool:
    return kid is None or any(each.kid == kid for each in keys)
