"""Client of other authorization servers' token endpoints."""

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
from toolbus_common.crypto.dpop.proof import HEADER, NONCE_HEADER, WANTS_NONCE, nonce_of
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest
from toolbus_oauth.clients.registry import ASSERTION
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.upstreams.client_identity import ClientIdentity
from toolbus_oauth.upstreams.discovery import scopes_in

ASSERTION_SECONDS = 120
USUAL_SECONDS, LONGEST_SECONDS = 3600.0, 90 * 86_400.0  # default and maximum lifetime
LONGEST_TOKEN = 16 * 1024
MOST_NONCES = 1024
_OK = 200
_TOKEN = re.compile(r"[\x21-\x7e]+")  # characters allowed in a header
_CODE = re.compile(r"[a-z_]{1,64}")
INVALID_CLIENT = "invalid_client"
_SEE_REGISTERED = "; check that the client certificate under oauth.clients is the registered one"
_SEE_TRUSTED = f"{_SEE_REGISTERED}, and of an authority that the server trusts"
_DECLARE_ONE = "; if it requires a client certificate, configure one under oauth.clients"
FOR_GOOD = ("invalid_grant", "unauthorized_client", "invalid_scope")


class TokenRequestError(Exception):
    """No token was issued; `code` is the OAuth error code, or empty without a valid response."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code

    @property
    def for_good(self) -> bool:
        """Whether repeating the same request cannot succeed."""
        return self.code in FOR_GOOD


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """Token response; `scopes` are None where the server issued what was requested.

    `key` is the private key that the token is bound to, or empty.
    """

    token: str
    ends: float
    refresh: str
    scopes: tuple[str, ...] | None
    key: str = ""


@dataclass(frozen=True, slots=True)
class RemoteEndpoint:
    """Token endpoint; `issuer` is the audience of client assertions."""

    url: str
    issuer: str
    named: bool


@dataclass(frozen=True, slots=True)
class TokenClient:
    """Request and revoke tokens; `nonces` holds each endpoint's last DPoP nonce."""

    fetcher: HttpClient
    keys: SigningKeys
    nonces: dict[str, str] = field(default_factory=dict)

    async def request_token(
        self, endpoint: RemoteEndpoint, client: ClientIdentity, form: dict[str, str], key: str = ""
    ) -> IssuedToken:
        """Request a token, bound to this private key if given. Raises `TokenRequestError`."""
        return parse_token_response(await self.send(endpoint, client, form, key), time(), key)

    async def send(
        self, endpoint: RemoteEndpoint, client: ClientIdentity, form: dict[str, str], key: str = ""
    ) -> dict[str, Any]:
        """Send a token request and return its successful response. Raises `TokenRequestError`."""
        bound = ProofKey.of(key) if key else None
        status, response = await self._post(endpoint, client, form, bound)
        if bound is not None and response.get("error") == WANTS_NONCE:
            status, response = await self._post(
                endpoint, client, form, bound
            )  # with the nonce it sent
        if status != _OK:
            code = response.get("error")
            valid_code = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
            reason = f"it responds with HTTP {status} {valid_code}".rstrip()
            hint = _SEE_REGISTERED if client.shown and valid_code == INVALID_CLIENT else ""
            raise TokenRequestError(valid_code, reason + hint)
        return response

    async def revoke(
        self, endpoint: RemoteEndpoint, client: ClientIdentity, token: str, kind: str
    ) -> None:
        """Revoke a token (RFC 7009). Raises `TokenRequestError` if that fails."""
        status, _ = await self._post(endpoint, client, {"token": token, "token_type_hint": kind})
        if status != _OK:
            raise TokenRequestError("", f"it responds with HTTP {status}")

    async def _post(
        self,
        endpoint: RemoteEndpoint,
        client: ClientIdentity,
        form: dict[str, str],
        key: ProofKey | None = None,
    ) -> tuple[int, dict[str, Any]]:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if key is not None:
            nonce = self.nonces.get(endpoint.url, "")
            headers[HEADER] = key.proof("POST", bare(endpoint.url), nonce=nonce)
        fields = {**form, **self._authentication(endpoint, client, headers)}
        body = urlencode(fields).encode()
        try:
            response = await self.fetcher.send(
                HttpRequest(
                    "POST", endpoint.url, body, headers,
                    operator_named=endpoint.named, certificate=client.shown,
                )
            )  # fmt: skip
        except HttpError as error:
            needs_hint = error.ended and endpoint.url.startswith("https://")
            hint = (_SEE_TRUSTED if client.shown else _DECLARE_ONE) if needs_hint else ""
            raise TokenRequestError("", f"{error}{hint}") from error
        if key is not None:
            self._store_nonce(endpoint.url, response.headers)
        try:
            members = strict_json.members(response.body or b"{}")
        except strict_json.StrictJSONError:
            members = {}
        return response.status, members

    def _store_nonce(self, url: str, headers: Mapping[str, str]) -> None:
        if nonce := nonce_of(headers.get(NONCE_HEADER, "")):
            if len(self.nonces) >= MOST_NONCES:
                self.nonces.clear()
            self.nonces[url] = nonce

    def _authentication(
        self, endpoint: RemoteEndpoint, client: ClientIdentity, headers: dict[str, str]
    ) -> dict[str, str]:
        """Return the form members that authenticate the client; may add a header."""
        if client.method == "client_secret_basic":
            pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
            return {"client_id": client.id}  # the MCP SDK's servers look for it here
        if client.method == "client_secret_post":
            return {"client_id": client.id, "client_secret": client.secret}
        if client.method == BY_KEY:
            assertion = client.assertion or self._assertion(endpoint, client)
            assertion_fields = {"client_assertion_type": ASSERTION, "client_assertion": assertion}
            return {"client_id": client.id, **assertion_fields}
        return {"client_id": client.id}

    def _assertion(self, endpoint: RemoteEndpoint, client: ClientIdentity) -> str:
        now = int(time())
        claims = {
            "iss": client.id,
            "sub": client.id,
            "aud": endpoint.issuer,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        }
        return _signed(claims, client.key) if client.key else self.keys.sign(claims, "JWT")


def parse_token_response(response: dict[str, Any], now: float, key: str = "") -> IssuedToken:
    """Parse a token response for a request with this private key. Pure.

    Raises `TokenRequestError`.
    """
    token, refresh = response.get("access_token"), response.get("refresh_token", "")
    kind = str(response.get("token_type")).lower()
    if not is_valid_token(token) or kind not in ("bearer", *(["dpop"] if key else [])):
        raise TokenRequestError("", "its response has no usable token")
    seconds = response.get("expires_in")
    if isinstance(seconds, str) and seconds.isdecimal():
        seconds = int(seconds)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0:
        seconds = USUAL_SECONDS
    scope = response.get("scope")
    scopes = scopes_in(scope.split()) if isinstance(scope, str) else None
    ends = now + min(float(seconds), LONGEST_SECONDS)
    bound = key if kind == "dpop" else ""
    return IssuedToken(str(token), ends, refresh if is_valid_token(refresh) else "", scopes, bound)


def _signed(claims: dict[str, Any], key: str) -> str:
    """Return an assertion signed with the configured key. Raises `TokenRequestError`."""
    for kind, algorithm in ((ECKey, "ES256"), (RSAKey, "RS256")):
        try:
            made = kind.import_key(key)
            return jwt.encode(
                {"alg": algorithm, "typ": "JWT"}, claims, made, algorithms=[algorithm]
            )
        except (JoseError, ValueError, TypeError):
            continue
    raise TokenRequestError("", "the key of its client is not a PEM private key for ES256 or RS256")


def is_valid_token(token: Any) -> bool:
    """Return whether a value is a token that can be sent in a header or form. Pure."""
    return isinstance(token, str) and len(token) <= LONGEST_TOKEN and bool(_TOKEN.fullmatch(token))
