"""The token endpoint of another authorization server: one question, one token or a refusal."""

import re
import secrets
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any
from urllib.parse import quote_plus, urlencode

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from toolbus_common import strict_json
from toolbus_common.config.servers.oauth import BY_KEY
from toolbus_common.crypto.dpop.client import ProofKey, bare
from toolbus_common.crypto.dpop.proof import HEADER, NONCE_HEADER, WANTS_NONCE, nonce_told
from toolbus_oauth.clients.registry import ASSERTION
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.storage.http_client import Fetcher, FetchError
from toolbus_oauth.upstreams.client_identity import Identity
from toolbus_oauth.upstreams.discovery import scopes_in

ASSERTION_SECONDS = 120
USUAL_SECONDS, LONGEST_SECONDS = 3600.0, 90 * 86_400.0  # where nothing is said; and at most
LONGEST_TOKEN = 16 * 1024
MOST_NONCES = 1024
_OK = 200
_TOKEN = re.compile(r"[\x21-\x7e]+")  # what may stand in a header
_CODE = re.compile(r"[a-z_]{1,64}")
INVALID_CLIENT = "invalid_client"
_SEE_REGISTERED = "; see that the certificate declared for our client there is the registered one"
_SEE_TRUSTED = f"{_SEE_REGISTERED}, of an authority it trusts"
_DECLARE_ONE = "; where it wants a certificate of its clients, declare one under oauth.clients"
FOR_GOOD = ("invalid_grant", "unauthorized_client", "invalid_scope")


class RefusedError(Exception):
    """No token came; `code` is OAuth's word for why, or empty where the server was not reached."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code

    @property
    def for_good(self) -> bool:
        """Whether the very same question will not be answered otherwise."""
        return self.code in FOR_GOOD


@dataclass(frozen=True, slots=True)
class Given:
    """What came; `scopes` are None where the server gave what was asked for.

    `key` is the private key the token is bound to; empty: to none.
    """

    token: str
    ends: float
    refresh: str
    scopes: tuple[str, ...] | None
    key: str = ""


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """One of them; its issuer is whom assertions are made for."""

    url: str
    issuer: str
    named: bool


@dataclass(frozen=True, slots=True)
class Tokens:
    """Asks for tokens and gives them back. `nonces` are the last that endpoints gave for proofs."""

    fetcher: Fetcher
    keys: SigningKeys
    nonces: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, place: TokenEndpoint, client: Identity, form: dict[str, str], key: str = ""
    ) -> Given:
        """One token, bound to this private key if there is one. Raises `RefusedError`."""
        return given(await self.told(place, client, form, key), time(), key)

    async def told(
        self, place: TokenEndpoint, client: Identity, form: dict[str, str], key: str = ""
    ) -> dict[str, Any]:
        """What it answers, if that is no refusal. Raises `RefusedError`."""
        bound = ProofKey.of(key) if key else None
        status, told = await self._post(place, client, form, bound)
        if bound is not None and told.get("error") == WANTS_NONCE:
            status, told = await self._post(place, client, form, bound)  # with the one it gave
        if status != _OK:
            code = told.get("error")
            fine = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
            said = f"it answers {status} {fine}".rstrip()
            hint = _SEE_REGISTERED if client.shown and fine == INVALID_CLIENT else ""
            raise RefusedError(fine, said + hint)
        return told

    async def revoke(self, place: TokenEndpoint, client: Identity, token: str, kind: str) -> None:
        """Give one back (RFC 7009). Raises `RefusedError` where nobody took it."""
        status, _ = await self._post(place, client, {"token": token, "token_type_hint": kind})
        if status != _OK:
            raise RefusedError("", f"it answers {status}")

    async def _post(
        self,
        place: TokenEndpoint,
        client: Identity,
        form: dict[str, str],
        key: ProofKey | None = None,
    ) -> tuple[int, dict[str, Any]]:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if key is not None:
            nonce = self.nonces.get(place.url, "")
            headers[HEADER] = key.proof("POST", bare(place.url), nonce=nonce)
        shown = {**form, **self._proof(place, client, headers)}
        body = urlencode(shown).encode()
        try:
            answer = await self.fetcher.post(
                place.url, body, headers, named=place.named, shown=client.shown
            )
        except FetchError as error:
            meant = error.ended and place.url.startswith("https://")
            hint = (_SEE_TRUSTED if client.shown else _DECLARE_ONE) if meant else ""
            raise RefusedError("", f"{error}{hint}") from error
        if key is not None:
            self._keep_nonce(place.url, answer.headers)
        try:
            told = strict_json.members(answer.body or b"{}")
        except strict_json.StrictJSONError:
            told = {}
        return answer.status, told

    def _keep_nonce(self, url: str, headers: Mapping[str, str]) -> None:
        if nonce := nonce_told(headers.get(NONCE_HEADER, "")):
            if len(self.nonces) >= MOST_NONCES:
                self.nonces.clear()
            self.nonces[url] = nonce

    def _proof(
        self, place: TokenEndpoint, client: Identity, headers: dict[str, str]
    ) -> dict[str, str]:
        """What shows that it is us: members of the form, or a header."""
        if client.method == "client_secret_basic":
            pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
            return {"client_id": client.id}  # the MCP SDK's servers look for it here
        if client.method == "client_secret_post":
            return {"client_id": client.id, "client_secret": client.secret}
        if client.method == BY_KEY:
            assertion = client.assertion or self._assertion(place, client)
            shown = {"client_assertion_type": ASSERTION, "client_assertion": assertion}
            return {"client_id": client.id, **shown}
        return {"client_id": client.id}

    def _assertion(self, place: TokenEndpoint, client: Identity) -> str:
        now = int(time())
        claims = {
            "iss": client.id,
            "sub": client.id,
            "aud": place.issuer,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        }
        return _signed(claims, client.key) if client.key else self.keys.sign(claims, "JWT")


def given(told: dict[str, Any], now: float, key: str = "") -> Given:
    """A token endpoint's answer to who proved this key, as far as it can be used. Pure.

    Raises `RefusedError`.
    """
    token, refresh = told.get("access_token"), told.get("refresh_token", "")
    kind = str(told.get("token_type")).lower()
    if not fits(token) or kind not in ("bearer", *(["dpop"] if key else [])):
        raise RefusedError("", "it gives no token that can be used")
    seconds = told.get("expires_in")
    if isinstance(seconds, str) and seconds.isdecimal():
        seconds = int(seconds)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0:
        seconds = USUAL_SECONDS
    scope = told.get("scope")
    scopes = scopes_in(scope.split()) if isinstance(scope, str) else None
    ends = now + min(float(seconds), LONGEST_SECONDS)
    bound = key if kind == "dpop" else ""
    return Given(str(token), ends, refresh if fits(refresh) else "", scopes, bound)


def _signed(claims: dict[str, Any], key: str) -> str:
    """An assertion by a key that was declared. Raises `RefusedError`."""
    for kind, algorithm in ((ECKey, "ES256"), (RSAKey, "RS256")):
        try:
            made = kind.import_key(key)
            return jwt.encode(
                {"alg": algorithm, "typ": "JWT"}, claims, made, algorithms=[algorithm]
            )
        except (JoseError, ValueError, TypeError):
            continue
    raise RefusedError("", "its client's key is no private key for ES256 or RS256 in PEM form")


def fits(token: Any) -> bool:
    """Whether this is a token that can be sent on, in a header or a form. Pure."""
    return isinstance(token, str) and len(token) <= LONGEST_TOKEN and bool(_TOKEN.fullmatch(token))
