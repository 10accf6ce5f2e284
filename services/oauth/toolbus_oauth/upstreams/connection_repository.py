"""Repository of connections: tokens for upstream servers, each renewed by one replica."""

import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import time

from msgspec.structs import replace

from toolbus_common.config import Server
from toolbus_common.config.servers.oauth import CLIENT_CREDENTIALS
from toolbus_common.contracts import ConnectionCreated, ConnectionEnded, Event
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.crypto.dpop.client import ProofKey
from toolbus_common.crypto.p256 import ALGORITHM
from toolbus_oauth.clients.registry import JWT_BEARER
from toolbus_oauth.oauth_client.identity import (
    INVALID_CLIENT,
    ClientIdentity,
    RemoteEndpoint,
    TokenRequestError,
)
from toolbus_oauth.oauth_client.token_client import IssuedToken, TokenClient
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.client_identity import (
    ClientIdentities,
    is_machine,
    is_workload,
    needs_no_consent,
)
from toolbus_oauth.upstreams.connections.records import Connection, Link
from toolbus_oauth.upstreams.connections.renewal_lock import RenewalLock
from toolbus_oauth.upstreams.discovery import (
    AuthorizationServer,
    ClientReplacedError,
    DiscoveryError,
)
from toolbus_oauth.upstreams.id_jag import IdentityAssertions

SOON_SECONDS = 120.0  # a token is renewed this long before it expires
MIN_SECONDS = 5.0  # a token with less time left is not used for a call
OTHER_CLIENT = "unauthorized_client"  # the client that obtained the token no longer exists
_NO_TOKEN = {"grant_type": "refresh_token", "refresh_token": "none"}
_UNREGISTERED = (
    "the authorization server deleted the registration of Toolbus; the next link registers "
    "Toolbus again"
)

Renew = Callable[[Connection | None], Awaitable[Connection | None]]


@dataclass(slots=True)
class ConnectionRepository:
    """Repository that stores, renews and ends connections.

    Concurrent renewals of one token cause a single request.
    """

    store: Store
    clients: ClientIdentities
    tokens: TokenClient
    renewal_lock: RenewalLock
    assertions: IdentityAssertions
    publish: Callable[[Event], None]

    async def get(self, name: str, server: Server, user: str) -> Connection | None:
        """Return the connection, or None if it does not match the server's configuration."""
        found = await self.store.get(Connection, _key(name, user))
        return found if found is not None and _is_of_use(found, server) else None

    async def for_listing(self, name: str, server: Server) -> Connection | None:
        """Return the connection with which to list tools, or None.

        It is the connection of the configured account, else the longest-lived connection.
        """
        if server.oauth is not None and server.oauth.listing:
            return await self.get(name, server, server.oauth.listing)
        every = await self.store.every(Connection)
        fits = [each for each in every if each.server == name and _is_of_use(each, server)]
        return max(fits, key=lambda each: (bool(each.refresh), each.ends), default=None)

    async def every(self) -> list[Connection]:
        """Return all connections."""
        return sorted(await self.store.every(Connection), key=lambda each: (each.server, each.user))

    async def renew(
        self, name: str, server: Server, current: Connection, *, refused: bool
    ) -> Connection | None:
        """Return the connection with a new token, or None if the person must consent again.

        `refused` means that the server rejected the current token. Otherwise, the current token is
        used until it expires if the authorization server is unavailable.
        """

        async def renew(now: Connection | None) -> Connection | None:
            if now is None or now.token != current.token:
                return now  # already renewed by another task or replica
            try:
                return await self._refreshed(server, now)
            except TokenRequestError as error:
                if error.for_good:
                    await self._drop(now, f"its authorization server ended it ({error.code})")
                    return None
                if refused or now.ends < time() + MIN_SECONDS:
                    raise
                return now

        if not current.refresh:
            if refused or current.ends < time() + MIN_SECONDS:
                await self._drop(current, "its token is no longer valid")
                return None
            return current
        return await self._renew_locked(name, server, current.user, renew)

    async def obtain(
        self,
        name: str,
        server: Server,
        user: str,
        found: AuthorizationServer,
        scopes: tuple[str, ...],
        refused: str,
    ) -> Connection | None:
        """Return the connection of a server that needs no consent, with a new token if needed.

        `refused` is a token that the server rejected, or empty. Raises `SignInRequiredError` if the
        person must first sign in at the provider.
        """

        async def fetch(now: Connection | None) -> Connection | None:
            fits = (
                now is not None and set(scopes) <= set(now.requested) and now.issuer == found.issuer
            )
            if now is not None and fits and now.token != refused and not about_to_end(now):
                return now
            client = await self.clients.at(server, found)
            form = await self._form(server, user, found, scopes)
            link = link_for(name, server, user, found, client, scopes)
            endpoint = self._endpoint(server, link.endpoint, found.issuer)
            response = await self._request_token(endpoint, client, form, _new_key(link))
            # No refresh token is stored: the next token needs a new assertion, which may be denied.
            once = IssuedToken(response.token, response.ends, "", response.scopes, response.key)
            return await self._store(server, link, once, now)

        return await self._renew_locked(name, server, user, fetch)

    async def _form(
        self, server: Server, user: str, found: AuthorizationServer, scopes: tuple[str, ...]
    ) -> dict[str, str]:
        """Return the token request's parameters (RFC 6749 section 4.4, RFC 7523 section 2.1)."""
        meant = _target_params(found.resource, scopes)
        if is_workload(server):
            assertion = await self.clients.workload(server, found.issuer)
        elif is_machine(server):
            return {"grant_type": CLIENT_CREDENTIALS, **meant}
        else:
            assertion = await self.assertions.assertion_for(server, user, found, scopes)
        return {"grant_type": JWT_BEARER, "assertion": assertion, **meant}

    async def complete(self, server: Server, link: Link, code: str, verifier: str) -> Connection:
        """Create the connection to which a person consented.

        Raises `DiscoveryError` or `TokenRequestError`.
        """
        client = await self.clients.again(server, link.issuer, link.client_id, link.method)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.clients.redirect(link),
            "code_verifier": verifier,
            **_target_params(link.resource, ()),
        }
        endpoint = self._endpoint(server, link.endpoint, link.issuer)
        response = await self._request_token(endpoint, client, form, _new_key(link))
        return await self._store(server, link, response, None)

    async def verified_client(
        self, server: Server, found: AuthorizationServer, client: ClientIdentity
    ) -> ClientIdentity:
        """Return this client if the issuer still knows it, else a new one. Raises `DiscoveryError`.

        An authorization server that deleted a client does not redirect the browser back, so Toolbus
        would not detect the failure. A registration that no connection uses is therefore tested
        with a token request.
        """
        if not await self.clients.registrations.is_old(found.issuer, client.id):
            return client
        ours = (found.issuer, client.id)
        if any((each.issuer, each.client_id) == ours for each in await self.every()):
            return client
        endpoint = self._endpoint(server, found.url("token_endpoint"), found.issuer)
        with suppress(TokenRequestError):  # a known client gets another error
            await self._request_token(endpoint, client, _NO_TOKEN, "")
        return await self.clients.at(server, found)

    async def end(self, server: Server | None, found: Connection, reason: str, by: str) -> None:
        """Delete the connection, and revoke its tokens if the issuer supports revocation."""
        await self._drop(found, reason, by)
        if not found.revocation or server is None:
            return
        try:
            own = await self.clients.again(server, found.issuer, found.client_id, found.method)
            endpoint = self._endpoint(server, found.revocation, found.issuer)
            for token, kind in ((found.refresh, "refresh_token"), (found.token, "access_token")):
                if token:
                    await self.tokens.revoke(endpoint, own, token, kind)
        except (DiscoveryError, TokenRequestError):
            return  # the connection is deleted; its tokens expire later

    async def disconnect(
        self, server: Server | None, found: Connection, reason: str, by: str = ""
    ) -> None:
        """End a connection on request, and delete the ID tokens that would recreate it."""
        if server is not None and needs_no_consent(server):
            await self.assertions.forget(found.user)
        await self.end(server, found, reason, by)

    # -- token requests ------------------------------------------------------------------------

    async def _request_token(
        self, endpoint: RemoteEndpoint, client: ClientIdentity, form: dict[str, str], key: str
    ) -> IssuedToken:
        """Request a token. Raises `TokenRequestError`.

        If the issuer no longer knows the registered client, the registration is deleted.
        """
        try:
            return await self.tokens.request_token(endpoint, client, form, key)
        except TokenRequestError as error:
            forgotten = error.code == INVALID_CLIENT
            if forgotten and await self.clients.registrations.forget(endpoint.issuer, client.id):
                raise TokenRequestError(OTHER_CLIENT, _UNREGISTERED) from error
            raise

    async def _refreshed(self, server: Server, now: Connection) -> Connection:
        try:
            client = await self.clients.again(server, now.issuer, now.client_id, now.method)
        except ClientReplacedError as error:
            raise TokenRequestError(OTHER_CLIENT, str(error)) from error
        except DiscoveryError as error:
            # The credential is unreadable now, but may be readable later.
            raise TokenRequestError("", str(error)) from error
        form = {
            "grant_type": "refresh_token",
            "refresh_token": now.refresh,
            **_target_params(now.resource, ()),
        }
        endpoint = self._endpoint(server, now.endpoint, now.issuer)
        response = await self._request_token(endpoint, client, form, now.key)
        _check_bound(server, response)
        renewed = replace(
            now,
            token=response.token,
            ends=response.ends,
            refresh=response.refresh or now.refresh,
            scopes=now.scopes if response.scopes is None else response.scopes,
            key=response.key,
        )
        await self.store.put(_key(now.server, now.user), renewed)
        return renewed

    async def _store(
        self, server: Server, link: Link, response: IssuedToken, before: Connection | None
    ) -> Connection:
        _check_bound(server, response)
        requested = link.scopes
        made = Connection(
            link.server, link.user, link.url, link.issuer, link.resource, link.endpoint,
            link.revocation, link.client_id, link.method, response.token, response.ends,
            response.refresh, requested, requested if response.scopes is None else response.scopes,
            time(), response.key,
        )  # fmt: skip
        await self.store.put(_key(link.server, link.user), made)
        if before is None:
            about = {"server": link.server, "user": link.user, "issuer": link.issuer}
            self.publish(
                ConnectionCreated(id=_id("made"), at=time(), customer=DEFAULT_CUSTOMER, **about)
            )
        return made

    async def _drop(self, found: Connection, reason: str, by: str = "") -> None:
        await self.store.drop(Connection, _key(found.server, found.user))
        about = {"server": found.server, "user": found.user, "issuer": found.issuer}
        self.publish(
            ConnectionEnded(
                id=_id("ended"), at=time(), customer=DEFAULT_CUSTOMER, reason=reason, by=by, **about
            )
        )

    async def _renew_locked(
        self, name: str, server: Server, user: str, renew: Renew
    ) -> Connection | None:
        """Call `renew` with the stored connection while its lock is held."""
        async with self.renewal_lock.hold(_key(name, user)):
            return await renew(await self.get(name, server, user))

    def _endpoint(self, server: Server, url: str, issuer: str) -> RemoteEndpoint:
        return RemoteEndpoint(url, issuer, self.clients.is_named(url, server))


def link_for(
    name: str,
    server: Server,
    user: str,
    found: AuthorizationServer,
    client: ClientIdentity,
    scopes: tuple[str, ...],
) -> Link:
    """Return a new link for an authorization request; it is not stored."""
    shows = bool(client.shown)
    return Link(
        secrets.token_urlsafe(24), name, user, server.oauth_place, found.issuer,
        found.resource, found.url("authorization_endpoint"),
        found.place("token_endpoint", shows=shows), found.place("revocation_endpoint", shows=shows),
        found.says_issuer, client.id, client.method, scopes, time() + 600.0,
        wants_bound(server, found),
    )  # fmt: skip


def wants_bound(server: Server, found: AuthorizationServer) -> bool:
    """Return whether to request bound tokens: as configured, else if the server supports them."""
    if server.oauth is not None and server.oauth.dpop is not None:
        return server.oauth.dpop
    if server.is_process or server.grpc:  # these transports cannot send proofs
        return False
    return found.has("dpop_signing_alg_values_supported", ALGORITHM)


def about_to_end(connection: Connection) -> bool:
    """Return whether a token must be renewed now.

    That is so if less than two minutes remain, or less than a quarter of a short lifetime.
    """
    lasts = max(connection.ends - connection.made, 0.0)
    return connection.ends - time() < min(SOON_SECONDS, max(MIN_SECONDS, lasts / 4))


def _is_of_use(connection: Connection, server: Server) -> bool:
    """Return whether a connection fits the configured URL and key binding."""
    must = server.oauth is not None and server.oauth.dpop
    return connection.url == server.oauth_place and bool(connection.key or not must)


def _new_key(link: Link) -> str:
    """Return a new private key if the link requests a bound token, else an empty string."""
    return ProofKey.new().kept if link.bound else ""


def _check_bound(server: Server, response: IssuedToken) -> None:
    if server.oauth is not None and server.oauth.dpop and not response.key:
        raise TokenRequestError("", "its token is not bound to a key, but oauth.dpop requires one")


def _target_params(resource: str, scopes: tuple[str, ...]) -> dict[str, str]:
    params = {"resource": resource} if resource else {}
    return params | ({"scope": " ".join(scopes)} if scopes else {})


def _key(name: str, user: str) -> str:
    return f"{name} {user}"


def _id(what: str) -> str:
    return f"{secrets.token_hex(12)}.{what}"
