"""OpenID providers: their documents and keys, kept and renewed; and how people sign in there."""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_urlsafe
from time import monotonic, time
from typing import Any
from urllib.parse import quote_plus, urlencode

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from toolbus_common import strict_json
from toolbus_common.base64url import encoded
from toolbus_common.config import Configuration, Issuer
from toolbus_common.egress import EgressError, target_of
from toolbus_common.secrets import SecretError, Secrets, filled
from toolbus_oauth.accounts.access_rules import called
from toolbus_oauth.keys.unverified_jwt import peeked
from toolbus_oauth.storage.http_client import Fetched, Fetcher, FetchError
from toolbus_oauth.storage.records import Departure, Person, Ticket, Used
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web import redirect_uris
from toolbus_oauth.web.errors import PageError
from toolbus_oauth.web.rate_limit import Pace
from toolbus_oauth.web.request import Fields

CALLBACK = "/oauth/callback/"
KEPT_SECONDS = 3600.0
ANEW_SECONDS = 30.0  # between looks for a key that is not there
AWAY_SECONDS = 600.0
MOST_A_MINUTE = 1200
LEEWAY = 30.0
MOST_CLAIMS = 4096  # bytes of those that are carried
_OK = 200
Arrived = Callable[[str, Issuer, dict[str, Any], dict[str, Any]], Awaitable[None]]
_OF_ANOTHER = "its answer is from somebody else"


class ProviderError(Exception):
    """A provider that cannot be used now, or what it said; the sentence says why."""


@dataclass(slots=True)
class _Known:
    document: dict[str, Any]
    keys: KeySet
    fetched: float


@dataclass(slots=True)
class Providers:
    """Those that are declared."""

    issuer: str
    brief: Store
    fetcher: Fetcher
    declared: Callable[[], Configuration]
    named: Callable[[Issuer], bool]
    secrets: Secrets
    on_arrived: Arrived | None = None  # with what came when somebody signed in
    pace: Pace = field(default_factory=lambda: Pace(MOST_A_MINUTE))
    _known: dict[str, _Known] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Those through which people sign in."""
        return [name for name, each in self.declared().issuers.items() if each.client_id]

    async def departure(self, name: str, ticket: Ticket) -> str:
        """Where to send a browser so that its person signs in. Raises `PageError`."""
        issuer = self._issuer(name)
        self.pace.keep()
        verifier, nonce, state = (token_urlsafe(32) for _ in range(3))
        try:
            document = (await self._provider(name, issuer)).document
        except ProviderError as error:
            raise PageError(f"{name} cannot be used now: {error}.", 502) from error
        away = Departure(ticket, name, verifier, nonce, time() + AWAY_SECONDS)
        await self.brief.put(state, away)
        challenge = encoded(sha256(verifier.encode()).digest())
        return redirect_uris.extended(
            str(document.get("authorization_endpoint")),
            response_type="code",
            client_id=issuer.client_id,
            redirect_uri=self._redirect(name),
            scope=" ".join(issuer.scopes),
            state=state,
            nonce=nonce,
            code_challenge=challenge,
            code_challenge_method="S256",
        )

    async def departed(self, state: str) -> Departure:
        """Where a browser came from that comes back: told once. Raises `PageError`."""
        away = await self.brief.get(Departure, state) if state else None
        if away is None or away.expires < time():
            raise PageError("This way back is unknown or too old. Begin anew in the program.")
        if not await self.brief.swap(f"state {state}", Used(), 0):
            raise PageError("This way back was taken before. Begin anew in the program.")
        return away

    async def arrived(self, away: Departure, path: str, query: Fields) -> Person:
        """Who signed in there, when it is there that the browser comes from. Raises `PageError`."""
        issuer = self._issuer(away.issuer)
        try:
            known = await self._provider(away.issuer, issuer)
            _check_sender(known.document, query, own=path == f"{CALLBACK}{away.issuer}")
            claims = await self._signed_in(away, issuer, query.get("code", ""))
        except (ProviderError, FetchError, SecretError) as error:
            raise PageError(f"{away.issuer} cannot be used now: {error}.", 502) from error
        user = called(self.declared(), away.issuer, claims)
        return Person(away.issuer, user, carried(claims))

    async def verified(self, name: str, issuer: Issuer, token: str) -> dict[str, Any]:
        """The claims of a token an issuer signed. Raises `ProviderError`."""
        header, _ = peeked(token)
        if header.get("alg") not in issuer.algorithms:
            raise ProviderError("it is signed in a way that is not declared for its issuer")
        known = await self._provider(name, issuer)
        if not _has(known.keys, header.get("kid")) and monotonic() - known.fetched > ANEW_SECONDS:
            known = await self._provider(name, issuer, anew=True)
        try:
            claims = dict(jwt.decode(token, known.keys, algorithms=list(issuer.algorithms)).claims)
        except (JoseError, ValueError, TypeError) as error:
            raise ProviderError("its signature is not one of its issuer's") from error
        _check_times(claims)
        if claims.get("iss") != known.document["issuer"]:
            raise ProviderError("it names another issuer")
        return claims

    async def token_endpoint(self, issuer: Issuer) -> tuple[str, bool]:
        """Where its tokens are asked for, and whether the operator named that place.

        Raises `ProviderError` or `FetchError`.
        """
        known = next((each for each in self._known.values() if _is_of(each, issuer)), None)
        document = known.document if known is not None else await self._described(issuer)
        url = str(document.get("token_endpoint"))
        return url, self._is_named(url, issuer)

    async def _signed_in(self, away: Departure, issuer: Issuer, code: str) -> dict[str, Any]:
        """The claims of the ID token a code is exchanged for."""
        if not code:
            raise ProviderError("it did not sign you in")
        known = await self._provider(away.issuer, issuer)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect(away.issuer),
            "code_verifier": away.verifier,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        secret = filled(issuer.secret, await self.secrets.read([issuer.secret]))
        if secret:
            pair = f"{quote_plus(issuer.client_id)}:{quote_plus(secret)}"
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = issuer.client_id
        url = str(known.document.get("token_endpoint"))
        body = urlencode(form).encode()
        named = self._is_named(url, issuer)
        told = _object(await self.fetcher.post(url, body, headers, named=named))
        claims = await self.verified(away.issuer, issuer, str(told.get("id_token", "")))
        meant = claims.get("aud")
        audience = meant if isinstance(meant, list) else [meant]
        if audience != [issuer.client_id] or claims.get("nonce") != away.nonce:
            raise ProviderError("its ID token was not made for this sign-in")
        if not isinstance(claims.get("sub"), str):
            raise ProviderError("its ID token names nobody")
        if self.on_arrived is not None:
            await self.on_arrived(away.issuer, issuer, claims, told)
        return claims

    async def _provider(self, name: str, issuer: Issuer, *, anew: bool = False) -> _Known:
        known = self._known.get(f"{name} {issuer.url}")
        if known is not None and not anew and monotonic() - known.fetched < KEPT_SECONDS:
            return known
        try:
            found = await self._fetched(issuer)
        except (FetchError, ProviderError) as error:
            if known is None:
                raise ProviderError(str(error)) from error
            known.fetched = monotonic() - KEPT_SECONDS + ANEW_SECONDS  # what was known holds
            return known
        self._known[f"{name} {issuer.url}"] = found
        return found

    async def _described(self, issuer: Issuer) -> dict[str, Any]:
        where = f"{issuer.url.rstrip('/')}/.well-known/openid-configuration"
        document = _object(await self.fetcher.get(where, named=self.named(issuer)))
        if document.get("issuer") != issuer.url:
            raise ProviderError("its document names another issuer")
        return document

    async def _fetched(self, issuer: Issuer) -> _Known:
        document = await self._described(issuer)
        keys_at = str(document.get("jwks_uri"))
        told = await self.fetcher.get(keys_at, named=self._is_named(keys_at, issuer))
        return _Known(document, _keys(_object(told)), monotonic())

    def _redirect(self, name: str) -> str:
        """Of its own for each: what answers there was asked in its name, `iss` or not."""
        return f"{self.issuer}{CALLBACK}{name}"

    def _is_named(self, url: str, issuer: Issuer) -> bool:
        """What a provider names beside itself is not what the operator named."""
        try:
            return target_of(url) == target_of(issuer.url) and self.named(issuer)
        except EgressError:
            return False

    def _issuer(self, name: str) -> Issuer:
        issuer = self.declared().issuers.get(name)
        if issuer is None or not issuer.client_id:
            raise PageError("Nobody signs in there.")
        return issuer


def carried(claims: dict[str, Any]) -> dict[str, Any]:
    """The claims that rules may ask for: plain values and lists of text, within bounds."""
    plain = {
        name: value
        for name, value in claims.items()
        if isinstance(value, str | bool | int)
        or (isinstance(value, list) and all(isinstance(each, str) for each in value))
    }
    kept: dict[str, Any] = {}
    for name in sorted(plain, key=lambda each: (each != "sub", each)):
        if len(msgspec.json.encode({**kept, name: plain[name]})) <= MOST_CLAIMS:
            kept[name] = plain[name]
    return kept


def _check_sender(document: dict[str, Any], query: Fields, *, own: bool) -> None:
    """See that the provider that was asked answers (RFC 9207), at its `own` redirect URI."""
    told = query.get("iss")
    if told is None and document.get("authorization_response_iss_parameter_supported") is True:
        raise ProviderError("its answer does not say who it is from")
    if not own or (told is not None and told != document["issuer"]):
        raise ProviderError(_OF_ANOTHER)


def _check_times(claims: dict[str, Any]) -> None:
    now, ends, begins = time(), claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(ends, int | float) or not isinstance(begins, int | float):
        raise ProviderError("it does not say until when it is good")
    if ends + LEEWAY < now:
        raise ProviderError("it has expired")
    if begins - LEEWAY > now:
        raise ProviderError("it is not good yet")


def _object(found: Fetched) -> dict[str, Any]:
    if found.status != _OK:
        raise ProviderError(f"it answers {found.status}")
    try:
        return strict_json.members(found.body)
    except strict_json.StrictJSONError as error:
        raise ProviderError("it answers with no JSON object") from error


def _keys(told: dict[str, Any]) -> KeySet:
    """The public signing keys of a set; others in it are passed over."""
    listed = told.get("keys")
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
        raise ProviderError("its keys cannot be read") from error


def _is_of(known: _Known, issuer: Issuer) -> bool:
    """Whether this is what the issuer said of itself lately."""
    return known.document["issuer"] == issuer.url and monotonic() - known.fetched < KEPT_SECONDS


def _has(keys: KeySet, kid: Any) -> bool:
    return kid is None or any(each.kid == kid for each in keys)
