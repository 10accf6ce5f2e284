"""Client of other authorization servers' token endpoints."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from types import ModuleType
from typing import Any

from toolbus_common import strict_json
from toolbus_common.crypto.dpop.client import ProofKey, bare
from toolbus_common.crypto.dpop.proof import HEADER, NONCE_HEADER, WANTS_NONCE, nonce_of
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.oauth_client.client_auth import method_of
from toolbus_oauth.oauth_client.identity import (
    INVALID_CLIENT,
    ClientIdentity,
    RemoteEndpoint,
    TokenRequestError,
)
from toolbus_oauth.oauth_client.scope_values import scopes_in

USUAL_SECONDS, LONGEST_SECONDS = 3600.0, 90 * 86_400.0  # default and maximum lifetime
LONGEST_TOKEN = 16 * 1024
MAX_NONCES = 1024
_OK, _DIGITS = 200, 12
_TOKEN = re.compile(r"[\x21-\x7e]+")  # characters allowed in a header
_CODE = re.compile(r"[a-z_]{1,64}")
_SEE_REGISTERED = "; check that the client certificate under oauth.clients is the registered one"
_SEE_TRUSTED = f"{_SEE_REGISTERED}, and of an authority that the server trusts"
_DECLARE_ONE = "; if it requires a client certificate, configure one under oauth.clients"


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """Token response; if `scopes` is None, the server granted the requested scopes.

    `key` is the private key that the token is bound to, or empty.
    """

    token: str
    ends: float
    refresh: str
    scopes: tuple[str, ...] | None
    key: str = ""


@dataclass(frozen=True, slots=True)
class CheckedResponse:
    """Validated token response, which Authlib's parser receives instead of the original."""

    members: dict[str, Any]
    status_code: int = _OK

    def json(self) -> dict[str, Any]:
        """Return the members of the JSON object."""
        return self.members


@dataclass(frozen=True, slots=True)
class TokenClient:
    """Client of token endpoints; `nonces` contains the last DPoP nonce of each endpoint."""

    fetcher: HttpClient
    keys: SigningKeys
    nonces: dict[str, str] = field(default_factory=dict)

    async def request_token(
        self, endpoint: RemoteEndpoint, client: ClientIdentity, form: dict[str, str], key: str = ""
    ) -> IssuedToken:
        """Request a token. If `key` is a private key, the token may be bound to it (DPoP).

        Raises `TokenRequestError`.
        """
        return parse_token_response(await self.send(endpoint, client, form, key), time(), key)

    async def send(
        self, endpoint: RemoteEndpoint, client: ClientIdentity, form: dict[str, str], key: str = ""
    ) -> dict[str, Any]:
        """Send a token request and return its successful response. Raises `TokenRequestError`."""
        bound = ProofKey.of(key) if key else None
        try:
            return await self._fetch(endpoint, client, form, bound)
        except TokenRequestError as error:
            if bound is None or error.code != WANTS_NONCE:
                raise
        return await self._fetch(endpoint, client, form, bound)  # with the nonce of that response

    async def revoke(
        self, endpoint: RemoteEndpoint, client: ClientIdentity, token: str, kind: str
    ) -> None:
        """Revoke a token (RFC 7009). Raises `TokenRequestError` if the revocation fails."""
        session = await _session_module()
        method = method_of(client, endpoint.issuer, self.keys)
        async with session.opened(self.fetcher, endpoint, client, method) as opened:
            try:
                response = await opened.revoke_token(
                    endpoint.url, token=token, token_type_hint=kind
                )
            except HttpError as error:
                raise _unsent(endpoint, client, error) from error
        if response.status_code != _OK:
            raise TokenRequestError("", f"it responds with HTTP {response.status_code}")

    async def _fetch(
        self,
        endpoint: RemoteEndpoint,
        client: ClientIdentity,
        form: dict[str, str],
        key: ProofKey | None,
    ) -> dict[str, Any]:
        """Send a token request once. Raises `TokenRequestError`."""

        def check(response: Any) -> CheckedResponse:
            if key is not None:
                self._store_nonce(endpoint.url, response.headers)
            return _checked(response.status_code, response.content, client)

        headers = {"content-type": "application/x-www-form-urlencoded"}
        if key is not None:
            nonce = self.nonces.get(endpoint.url, "")
            headers[HEADER] = key.proof("POST", bare(endpoint.url), nonce=nonce)
        session = await _session_module()
        method = method_of(client, endpoint.issuer, self.keys)
        async with session.opened(self.fetcher, endpoint, client, method) as opened:
            opened.register_compliance_hook("access_token_response", check)
            try:
                response = await opened.fetch_token(endpoint.url, headers=headers, **form)
            except HttpError as error:
                raise _unsent(endpoint, client, error) from error
        return dict(response)

    def _store_nonce(self, url: str, headers: Mapping[str, str]) -> None:
        if nonce := nonce_of(headers.get(NONCE_HEADER, "")):
            if len(self.nonces) >= MAX_NONCES:
                self.nonces.clear()
            self.nonces[url] = nonce


async def _session_module() -> ModuleType:
    """Return the module that opens sessions; it is imported in a thread at the first call."""
    return await asyncio.to_thread(_import_session)


def _import_session() -> ModuleType:
    from toolbus_oauth.oauth_client import session  # noqa: PLC0415

    return session


def _unsent(
    endpoint: RemoteEndpoint, client: ClientIdentity, error: HttpError
) -> TokenRequestError:
    """Return the error for a request that received no response."""
    needs_hint = error.ended and endpoint.url.startswith("https://")
    hint = (_SEE_TRUSTED if client.shown else _DECLARE_ONE) if needs_hint else ""
    return TokenRequestError("", f"{error}{hint}")


def _checked(status: int, body: bytes, client: ClientIdentity) -> CheckedResponse:
    """Return the members of a successful response. Raises `TokenRequestError`.

    Authlib alone is less strict: it accepts an object without `error` at any status below 500, uses
    the last of several members with one name, and fails if the lifetime is not a number.
    """
    try:
        members = strict_json.members(body or b"{}")
    except strict_json.StrictJSONError:
        members = {}
    if status != _OK or "error" in members:
        code = members.get("error")
        valid_code = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
        reason = f"it responds with HTTP {status} {valid_code}".rstrip()
        hint = _SEE_REGISTERED if client.shown and valid_code == INVALID_CLIENT else ""
        raise TokenRequestError(valid_code, reason + hint)
    members.pop("expires_at", None)
    return CheckedResponse({**members, "expires_in": _lifetime(members)})


def parse_token_response(response: dict[str, Any], now: float, key: str = "") -> IssuedToken:
    """Parse a token response; `key` is the private key that the request proved, or empty.

    Raises `TokenRequestError`.
    """
    token, refresh = response.get("access_token"), response.get("refresh_token", "")
    kind = str(response.get("token_type")).lower()
    if not is_valid_token(token) or kind not in ("bearer", *(["dpop"] if key else [])):
        raise TokenRequestError("", "its response has no usable token")
    scope = response.get("scope")
    scopes = scopes_in(scope.split()) if isinstance(scope, str) else None
    bound = key if kind == "dpop" else ""
    ends = now + _lifetime(response)
    return IssuedToken(str(token), ends, refresh if is_valid_token(refresh) else "", scopes, bound)


def _lifetime(response: dict[str, Any]) -> float:
    """Return a token's lifetime in seconds; the default if the response has no valid value."""
    seconds = response.get("expires_in")
    if isinstance(seconds, str) and len(seconds) <= _DIGITS and seconds.isdecimal():
        seconds = int(seconds)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0:
        seconds = USUAL_SECONDS
    return float(min(seconds, LONGEST_SECONDS))


def is_valid_token(token: Any) -> bool:
    """Return whether a value is a token that can be sent in a header or form."""
    return isinstance(token, str) and len(token) <= LONGEST_TOKEN and bool(_TOKEN.fullmatch(token))
