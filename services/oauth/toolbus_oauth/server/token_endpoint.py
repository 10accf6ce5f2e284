"""Token, device authorization, revocation and introspection endpoints."""

import hmac
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import Any

from toolbus_common.base64url import encoded
from toolbus_common.config import MACHINES
from toolbus_common.contracts import PageReply
from toolbus_oauth.accounts.access_rules import machine_name
from toolbus_oauth.clients.registry import (
    AUTHORIZATION_CODE,
    CREDENTIALS,
    DEVICE,
    EXCHANGE,
    JWT_BEARER,
    REFRESH,
    ClientRegistry,
    check_confidential,
)
from toolbus_oauth.server.device_flow import DeviceFlow
from toolbus_oauth.server.dpop_binding import DpopBinding
from toolbus_oauth.server.grants import Grants
from toolbus_oauth.server.jwt_bearer import AssertionVerifier
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.server.token_exchange import TokenExchange
from toolbus_oauth.storage.records import (
    AuthorizationRequest,
    Client,
    Code,
    Grant,
    Person,
    Refresh,
    Used,
)
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web.errors import OAuthError, invalid_client, invalid_grant
from toolbus_oauth.web.request import Fields, Request, json_response


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """Handlers of the token, device authorization, revocation and introspection endpoints."""

    clients: ClientRegistry
    grants: Grants
    devices: DeviceFlow
    assertions: AssertionVerifier
    token_exchange: TokenExchange
    brief: Store
    dpop: DpopBinding
    resources: Resources

    async def token(self, request: Request) -> PageReply:
        """Handle a token request (RFC 6749 section 3.2)."""
        client = await self.clients.authenticate(request)
        kind = request.form.get("grant_type", "")
        handlers = {
            AUTHORIZATION_CODE: self._by_code,
            REFRESH: self._by_refresh_token,
            CREDENTIALS: self._by_credentials,
            DEVICE: self._by_device_code,
            JWT_BEARER: self._by_assertion,
        }
        if kind not in (*handlers, EXCHANGE):
            raise OAuthError(
                "unsupported_grant_type",
                "This grant_type is not supported; use one that the metadata lists.",
            )
        if kind not in client.grants:
            raise OAuthError(
                "unauthorized_client",
                f"This client is not registered for {kind}; register one with that grant type.",
            )
        jkt = self.dpop.key_of(request, client)
        if kind == EXCHANGE:
            return json_response(200, await self.token_exchange.redeem(request.form, client, jkt))
        grant = await handlers[kind](request.form, client, jkt)
        await self.clients.keep(client)
        refreshable = REFRESH in client.grants and kind not in (CREDENTIALS, JWT_BEARER)
        return json_response(200, self.grants.response(grant, refreshable=refreshable))

    async def device_code(self, request: Request) -> PageReply:
        """Handle a device authorization request (RFC 8628 section 3.1)."""
        client = await self.clients.authenticate(request)
        if DEVICE not in client.grants:
            raise OAuthError(
                "unauthorized_client",
                f"This client is not registered for {DEVICE}; register one with that grant type.",
            )
        scope, resource = self._requested(request.form, client)
        auth_request = AuthorizationRequest(
            client.id, client.name, "", "", "", scope, resource, client.registered
        )
        return json_response(200, await self.devices.begin(auth_request))

    async def revoke(self, request: Request) -> PageReply:
        """Handle a revocation request (RFC 7009); it ends the whole grant."""
        client = await self.clients.authenticate(request)
        grant = await self._grant_of(request.form.get("token", ""))
        if grant is not None and grant.client_id == client.id:
            await self.grants.end(grant.id, "the client revoked it")
        return json_response(200, {})

    async def introspect(self, request: Request) -> PageReply:
        """Handle an authenticated client's introspection of its own token (RFC 7662)."""
        client = await self.clients.authenticate(request)
        if client.method == "none":
            raise invalid_client("A public client may not introspect tokens.")
        token = request.form.get("token", "")
        grant = await self._grant_of(token)
        active = grant is not None and await self.grants.active(grant.id) is not None
        if grant is None or not active or grant.client_id != client.id:
            return json_response(200, {"active": False})
        claims = self._claims(token)
        if claims and claims["exp"] <= time():
            return json_response(200, {"active": False})
        members = claims or {"iss": self.grants.issuer, "sub": grant.person.user, "exp": grant.ends}
        names = ("iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "act", "cnf")
        known = {name: members[name] for name in names if name in members}
        kind = {"token_type": "DPoP" if "cnf" in claims else "Bearer"} if claims else {}
        return json_response(200, {"active": True, "client_id": client.id, **kind, **known})

    async def _by_code(self, form: Fields, client: Client, jkt: str) -> Grant:
        code = await self.brief.get(Code, form.get("code", ""))
        if code is None or code.auth_request.client_id != client.id:
            raise invalid_grant(
                "This code is unknown, or was issued to another client; sign in again."
            )
        auth_request = code.auth_request
        _check_request(form, auth_request, jkt)
        if not await self.brief.swap(f"code {code.id}", Used(code.id), 0):
            await self.brief.put(f"again {code.id}", Used())
            raise await self._revoke_reused(code.id)
        if code.expires < time() or not await self.grants.accounts.is_current(code.person):
            raise invalid_grant("This code has expired, or its account was changed; sign in again.")
        grant = await self.grants.give(auth_request, code.person, code.id, jkt=jkt)
        if await self.brief.get(Used, f"again {code.id}") is not None:
            raise await self._revoke_reused(code.id)  # the code was used again concurrently
        return grant

    async def _revoke_reused(self, code_id: str) -> OAuthError:
        """End the grant of a code that was used twice, because it was probably stolen."""
        await self.grants.end(code_id, "a code was used twice")
        return invalid_grant("This code was used before; its grant has ended; sign in again.")

    async def _by_refresh_token(self, form: Fields, client: Client, jkt: str) -> Grant:
        requested = (form.get("resource", ""), form.get("scope", ""))
        return await self.grants.renew(form.get("refresh_token", ""), client, jkt, *requested)

    async def _by_device_code(self, form: Fields, client: Client, jkt: str) -> Grant:
        auth_request, person = await self.devices.redeem(form.get("device_code", ""), client.id)
        return await self.grants.give(auth_request, person, jkt=jkt)

    async def _by_assertion(self, form: Fields, client: Client, jkt: str) -> Grant:
        auth_request, person = await self.assertions.redeem(form.get("assertion", ""), client)
        return await self.grants.give(auth_request, person, jkt=jkt)

    async def _by_credentials(self, form: Fields, client: Client, jkt: str) -> Grant:
        """Create the grant of a client that acts for itself (RFC 6749 section 4.4)."""
        check_confidential(client)
        scope, resource = self._requested(form, client)
        claims = {"sub": client.id, "client": client.name}
        person = Person(MACHINES, machine_name(client.name), claims)
        auth_request = AuthorizationRequest(
            client.id, client.name, "", "", "", scope, resource, registered=False
        )
        grant_id = f"{client.id}-{sha256(f'{resource} {scope}'.encode()).hexdigest()[:12]}"
        return await self.grants.give(auth_request, person, grant_id, jkt=jkt)

    def _requested(self, form: Fields, client: Client) -> tuple[str, str]:
        """Return the scope and resource of a request. Raises `OAuthError`."""
        resource = self.resources.resolve(form.get("resource", ""))
        return self.resources.grant_scopes(client, resource, form.get("scope", "")), resource

    async def _grant_of(self, token: str) -> Grant | None:
        refresh = self.grants.seal.open(token, Refresh)
        if refresh is not None:
            grant = await self.grants.store.get(Grant, refresh.grant)
            return grant if grant is not None and grant.generation == refresh.generation else None
        claims = self._claims(token)
        grant = await self.grants.store.get(Grant, str(claims.get("grant"))) if claims else None
        same = grant is not None and grant.born == claims.get("born", "")
        return grant if same else None

    def _claims(self, token: str) -> dict[str, Any]:
        """Return the claims of an access token that this server signed; empty for other tokens."""
        found = self.grants.keys.verified(token)
        return found[1] if found is not None else {}


def _check_request(form: Fields, auth_request: AuthorizationRequest, jkt: str) -> None:
    """Check that a token request matches the authorization request. Raises `OAuthError`."""
    if not _is_verifier(form.get("code_verifier", ""), auth_request.challenge):
        raise invalid_grant("The code_verifier does not match the code_challenge.")
    if auth_request.jkt and auth_request.jkt != jkt:
        raise invalid_grant("The code is bound to the key of its dpop_jkt; prove that key.")
    if "redirect_uri" in form and form["redirect_uri"] != auth_request.redirect:
        raise invalid_grant("The redirect_uri differs from the one in the authorization request.")
    if form.get("resource", auth_request.resource) != auth_request.resource:
        raise OAuthError(
            "invalid_target", "The code was issued for another resource; name that one."
        )


def _is_verifier(verifier: str, challenge: str) -> bool:
    """Return whether a verifier matches an S256 challenge (RFC 7636 section 4.6)."""
    if not 43 <= len(verifier) <= 128 or not verifier.isascii():  # noqa: PLR2004 - RFC 7636
        return False
    digest = encoded(sha256(verifier.encode()).digest())
    return hmac.compare_digest(digest, challenge)
