"""The token endpoint: what each kind of grant is exchanged for, and how tokens are taken back."""

import hmac
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import Any

from toolbus_common.base64url import encoded
from toolbus_common.config import MACHINES
from toolbus_common.contracts import PageReply
from toolbus_oauth.accounts.access_rules import called_itself
from toolbus_oauth.clients.registry import (
    AUTHORIZATION_CODE,
    CREDENTIALS,
    DEVICE,
    EXCHANGE,
    JWT_BEARER,
    REFRESH,
    Clients,
    check_proves,
)
from toolbus_oauth.server.device_flow import Devices
from toolbus_oauth.server.dpop_binding import Proving
from toolbus_oauth.server.grants import Grants
from toolbus_oauth.server.jwt_bearer import Assertions
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.server.token_exchange import Exchanging
from toolbus_oauth.storage.records import Client, Code, Grant, Person, Refresh, Used, Wish
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web.errors import OAuthError, invalid_client, invalid_grant
from toolbus_oauth.web.request import Fields, Request, told_json


@dataclass(frozen=True, slots=True)
class Redeeming:
    """Gives tokens, and takes them back."""

    clients: Clients
    grants: Grants
    devices: Devices
    assertions: Assertions
    exchanging: Exchanging
    brief: Store
    proving: Proving
    resources: Resources

    async def token(self, request: Request) -> PageReply:
        """The token endpoint."""
        client = await self.clients.authenticated(request)
        kind = request.form.get("grant_type", "")
        ways = {
            AUTHORIZATION_CODE: self._of_code,
            REFRESH: self._of_refresh,
            CREDENTIALS: self._of_itself,
            DEVICE: self._of_device,
            JWT_BEARER: self._of_assertion,
        }
        if kind not in (*ways, EXCHANGE):
            raise OAuthError("unsupported_grant_type", "This grant_type is not known here.")
        if kind not in client.grants:
            raise OAuthError("unauthorized_client", f"This client may not use {kind}.")
        jkt = self.proving.key_of(request, client)
        if kind == EXCHANGE:
            return told_json(200, await self.exchanging.redeem(request.form, client, jkt))
        grant = await ways[kind](request.form, client, jkt)
        await self.clients.keep(client)
        refreshable = REFRESH in client.grants and kind not in (CREDENTIALS, JWT_BEARER)
        return told_json(200, self.grants.response(grant, refreshable=refreshable))

    async def device_code(self, request: Request) -> PageReply:
        """A device asks for a code to show."""
        client = await self.clients.authenticated(request)
        if DEVICE not in client.grants:
            raise OAuthError("unauthorized_client", "This client did not register for devices.")
        scope, resource = self._meant(request.form, client)
        wish = Wish(client.id, client.name, "", "", "", scope, resource, client.registered)
        return told_json(200, await self.devices.begin(wish))

    async def revoke(self, request: Request) -> PageReply:
        """A client gives a token back (RFC 7009): the whole grant ends."""
        client = await self.clients.authenticated(request)
        grant = await self._grant_of(request.form.get("token", ""))
        if grant is not None and grant.client_id == client.id:
            await self.grants.end(grant.id, "the client gave it back")
        return told_json(200, {})

    async def introspect(self, request: Request) -> PageReply:
        """What a token of its own is, told to a client that has proved itself (RFC 7662)."""
        client = await self.clients.authenticated(request)
        if client.method == "none":
            raise invalid_client("Only clients that prove who they are may ask.")
        token = request.form.get("token", "")
        grant = await self._grant_of(token)
        standing = grant is not None and await self.grants.standing(grant.id) is not None
        if grant is None or not standing or grant.client_id != client.id:
            return told_json(200, {"active": False})
        claims = self._claims(token)
        if claims and claims["exp"] <= time():
            return told_json(200, {"active": False})
        told = claims or {"iss": self.grants.issuer, "sub": grant.person.user, "exp": grant.ends}
        shown = ("iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "act", "cnf")
        known = {name: told[name] for name in shown if name in told}
        kind = {"token_type": "DPoP" if "cnf" in claims else "Bearer"} if claims else {}
        return told_json(200, {"active": True, "client_id": client.id, **kind, **known})

    async def _of_code(self, form: Fields, client: Client, jkt: str) -> Grant:
        code = await self.brief.get(Code, form.get("code", ""))
        if code is None or code.wish.client_id != client.id:
            raise invalid_grant("This code is none of this client's.")
        wish = code.wish
        _check_asked(form, wish, jkt)
        if not await self.brief.swap(f"code {code.id}", Used(code.id), 0):
            await self.brief.put(f"again {code.id}", Used())
            raise await self._taken_back(code.id)
        if code.expires < time() or not await self.grants.accounts.stands(code.person):
            raise invalid_grant("This code is too old.")
        grant = await self.grants.give(wish, code.person, code.id, jkt=jkt)
        if await self.brief.get(Used, f"again {code.id}") is not None:
            raise await self._taken_back(code.id)  # somebody else came with it meanwhile
        return grant

    async def _taken_back(self, code_id: str) -> OAuthError:
        """A code that was used twice was stolen: what it gave ends."""
        await self.grants.end(code_id, "a code was used twice")
        return invalid_grant("This code was used before.")

    async def _of_refresh(self, form: Fields, client: Client, jkt: str) -> Grant:
        told = (form.get("resource", ""), form.get("scope", ""))
        return await self.grants.renewed(form.get("refresh_token", ""), client, jkt, *told)

    async def _of_device(self, form: Fields, client: Client, jkt: str) -> Grant:
        wish, person = await self.devices.redeem(form.get("device_code", ""), client.id)
        return await self.grants.give(wish, person, jkt=jkt)

    async def _of_assertion(self, form: Fields, client: Client, jkt: str) -> Grant:
        wish, person = await self.assertions.redeem(form.get("assertion", ""), client)
        return await self.grants.give(wish, person, jkt=jkt)

    async def _of_itself(self, form: Fields, client: Client, jkt: str) -> Grant:
        """A token for a machine, in its own name."""
        check_proves(client)
        scope, resource = self._meant(form, client)
        claims = {"sub": client.id, "client": client.name}
        person = Person(MACHINES, called_itself(client.name), claims)
        wish = Wish(client.id, client.name, "", "", "", scope, resource, registered=False)
        grant_id = f"{client.id}-{sha256(f'{resource} {scope}'.encode()).hexdigest()[:12]}"
        return await self.grants.give(wish, person, grant_id, jkt=jkt)

    def _meant(self, form: Fields, client: Client) -> tuple[str, str]:
        """The scope and the resource a client asks for. Raises `OAuthError`."""
        resource = self.resources.meant(form.get("resource", ""))
        return self.resources.given(client, resource, form.get("scope", "")), resource

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
        """The claims of an access token of ours; empty for any other."""
        found = self.grants.keys.verified(token)
        return found[1] if found is not None else {}


def _check_asked(form: Fields, wish: Wish, jkt: str) -> None:
    """See that who brings a code is who asked for it. Raises `OAuthError`."""
    if not _proves(form.get("code_verifier", ""), wish.challenge):
        raise invalid_grant("The code_verifier does not fit.")
    if wish.jkt and wish.jkt != jkt:
        raise invalid_grant("The code was asked for with a dpop_jkt: prove that very key.")
    if "redirect_uri" in form and form["redirect_uri"] != wish.redirect:
        raise invalid_grant("The redirect_uri is not the one the code was sent to.")
    if form.get("resource", wish.resource) != wish.resource:
        raise OAuthError("invalid_target", "The code was given for another resource.")


def _proves(verifier: str, challenge: str) -> bool:
    """Whether this is the verifier of an S256 challenge (RFC 7636 section 4.6)."""
    if not 43 <= len(verifier) <= 128 or not verifier.isascii():  # noqa: PLR2004 - RFC 7636
        return False
    digest = encoded(sha256(verifier.encode()).digest())
    return hmac.compare_digest(digest, challenge)
