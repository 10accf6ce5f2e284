"""Connections: tokens for servers, each renewed in time by one replica for all."""

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
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.client_identity import (
    Clienthood,
    Identity,
    asks_nobody,
    is_machine,
    is_workload,
)
from toolbus_oauth.upstreams.connections.records import Connection, Link
from toolbus_oauth.upstreams.connections.renewal_lock import Turns
from toolbus_oauth.upstreams.discovery import AnotherClientError, DiscoveryError, Found
from toolbus_oauth.upstreams.id_jag import Vouching
from toolbus_oauth.upstreams.token_client import (
    INVALID_CLIENT,
    Given,
    RefusedError,
    TokenEndpoint,
    Tokens,
)

SOON_SECONDS = 120.0  # before its end a token is renewed
LEAST_SECONDS = 5.0  # a token that ends sooner is of no use to a call
OTHER_CLIENT = "unauthorized_client"  # what a token cannot be renewed as any more
_NO_TOKEN = {"grant_type": "refresh_token", "refresh_token": "none"}
_FORGOTTEN = "it knows no longer what it registered Toolbus as; that is done anew for the next link"

Renew = Callable[[Connection | None], Awaitable[Connection | None]]


@dataclass(slots=True)
class Connections:
    """What is kept of them, and how they are renewed.

    Of several who find the same token about to end one asks for the rest.
    """

    store: Store
    clients: Clienthood
    tokens: Tokens
    turns: Turns
    vouching: Vouching
    say: Callable[[Event], None]

    async def get(self, name: str, server: Server, user: str) -> Connection | None:
        """The connection, if it is of use as the server is declared now."""
        found = await self.store.get(Connection, _key(name, user))
        return found if found is not None and _is_of_use(found, server) else None

    async def lister(self, name: str, server: Server) -> Connection | None:
        """That of who was named to see which tools there are, else whichever lasts longest."""
        if server.oauth is not None and server.oauth.listing:
            return await self.get(name, server, server.oauth.listing)
        every = await self.store.every(Connection)
        fits = [each for each in every if each.server == name and _is_of_use(each, server)]
        return max(fits, key=lambda each: (bool(each.refresh), each.ends), default=None)

    async def every(self) -> list[Connection]:
        """All of them."""
        return sorted(await self.store.every(Connection), key=lambda each: (each.server, each.user))

    async def renewed(
        self, name: str, server: Server, seen: Connection, *, refused: bool
    ) -> Connection | None:
        """The connection with its next token; None where its person must consent anew.

        While its authorization server is away, the token it has is good for as long as it lasts.
        """

        async def renew(now: Connection | None) -> Connection | None:
            if now is None or now.token != seen.token:
                return now  # somebody else has been faster
            try:
                return await self._refreshed(server, now)
            except RefusedError as error:
                if error.for_good:
                    await self._drop(now, f"its authorization server ended it ({error.code})")
                    return None
                if refused or now.ends < time() + LEAST_SECONDS:
                    raise
                return now

        if not seen.refresh:
            if refused or seen.ends < time() + LEAST_SECONDS:
                await self._drop(seen, "its token is good no longer")
                return None
            return seen
        return await self._alone(name, server, seen.user, renew)

    async def direct(
        self,
        name: str,
        server: Server,
        user: str,
        found: Found,
        scopes: tuple[str, ...],
        refused: str,
    ) -> Connection | None:
        """A token that no person agrees to there: Toolbus' own, or by a provider's word.

        Raises `UnvouchedError` where that is not to be had of a person.
        """

        async def fetch(now: Connection | None) -> Connection | None:
            fits = now is not None and set(scopes) <= set(now.asked) and now.issuer == found.issuer
            if now is not None and fits and now.token != refused and not about_to_end(now):
                return now
            client = await self.clients.at(server, found)
            form = await self._form(server, user, found, scopes)
            link = link_for(name, server, user, found, client, scopes)
            place = self._place(server, link.endpoint, found.issuer)
            given = await self._given(place, client, form, _fresh(link))
            # The next one is asked for in the same way: who vouches may have changed their mind.
            once = Given(given.token, given.ends, "", given.scopes, given.key)
            return await self._keep(server, link, once, now)

        return await self._alone(name, server, user, fetch)

    async def _form(
        self, server: Server, user: str, found: Found, scopes: tuple[str, ...]
    ) -> dict[str, str]:
        """What such a token is asked with (RFC 6749 section 4.4, RFC 7523 section 2.1)."""
        meant = _meant(found.resource, scopes)
        if is_workload(server):
            word = await self.clients.workload(server, found.issuer)
        elif is_machine(server):
            return {"grant_type": CLIENT_CREDENTIALS, **meant}
        else:
            word = await self.vouching.word(server, user, found, scopes)
        return {"grant_type": JWT_BEARER, "assertion": word, **meant}

    async def made(self, server: Server, link: Link, code: str, verifier: str) -> Connection:
        """The connection a person consented to. Raises `DiscoveryError` or `RefusedError`."""
        client = await self.clients.again(server, link.issuer, link.client_id, link.method)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.clients.redirect(link),
            "code_verifier": verifier,
            **_meant(link.resource, ()),
        }
        place = self._place(server, link.endpoint, link.issuer)
        given = await self._given(place, client, form, _fresh(link))
        return await self._keep(server, link, given, None)

    async def tried(self, server: Server, found: Found, client: Identity) -> Identity:
        """Who a person is sent there as: this client, if it is known. Raises `DiscoveryError`.

        Whom its authorization server has forgotten it sends nobody back to, so that this is never
        told: a registration that no connection speaks for is tried first.
        """
        if not await self.clients.enrolling.is_old(found.issuer, client.id):
            return client
        ours = (found.issuer, client.id)
        if any((each.issuer, each.client_id) == ours for each in await self.every()):
            return client
        place = self._place(server, found.url("token_endpoint"), found.issuer)
        with suppress(RefusedError):  # a client it knows is refused as well: for that token
            await self._given(place, client, _NO_TOKEN, "")
        return await self.clients.at(server, found)

    async def end(self, server: Server | None, found: Connection, reason: str, by: str) -> None:
        """Forget it, and give its tokens back where its server takes them."""
        await self._drop(found, reason, by)
        if not found.revocation or server is None:
            return
        try:
            own = await self.clients.again(server, found.issuer, found.client_id, found.method)
            place = self._place(server, found.revocation, found.issuer)
            for token, kind in ((found.refresh, "refresh_token"), (found.token, "access_token")):
                if token:
                    await self.tokens.revoke(place, own, token, kind)
        except (DiscoveryError, RefusedError):
            return  # it is forgotten here; what it still opens there ends in time

    async def take_back(
        self, server: Server | None, found: Connection, reason: str, by: str = ""
    ) -> None:
        """End it as somebody wishes: what would begin it anew with the next call goes first."""
        if server is not None and asks_nobody(server):
            await self.vouching.forget(found.user)
        await self.end(server, found, reason, by)

    # -- how -----------------------------------------------------------------------------------

    async def _given(
        self, place: TokenEndpoint, client: Identity, form: dict[str, str], key: str
    ) -> Given:
        """A token; where it forgot that it registered us, so do we. Raises `RefusedError`."""
        try:
            return await self.tokens.ask(place, client, form, key)
        except RefusedError as error:
            forgotten = error.code == INVALID_CLIENT
            if forgotten and await self.clients.enrolling.forget(place.issuer, client.id):
                raise RefusedError(OTHER_CLIENT, _FORGOTTEN) from error
            raise

    async def _refreshed(self, server: Server, now: Connection) -> Connection:
        try:
            client = await self.clients.again(server, now.issuer, now.client_id, now.method)
        except AnotherClientError as error:
            raise RefusedError(OTHER_CLIENT, str(error)) from error
        except DiscoveryError as error:  # what proves us cannot be read now: it may be later
            raise RefusedError("", str(error)) from error
        form = {
            "grant_type": "refresh_token",
            "refresh_token": now.refresh,
            **_meant(now.resource, ()),
        }
        place = self._place(server, now.endpoint, now.issuer)
        given = await self._given(place, client, form, now.key)
        _check_bound(server, given)
        renewed = replace(
            now,
            token=given.token,
            ends=given.ends,
            refresh=given.refresh or now.refresh,
            scopes=now.scopes if given.scopes is None else given.scopes,
            key=given.key,
        )
        await self.store.put(_key(now.server, now.user), renewed)
        return renewed

    async def _keep(
        self, server: Server, link: Link, given: Given, before: Connection | None
    ) -> Connection:
        _check_bound(server, given)
        asked = link.scopes
        made = Connection(
            link.server, link.user, link.url, link.issuer, link.resource, link.endpoint,
            link.revocation, link.client_id, link.method, given.token, given.ends, given.refresh,
            asked, asked if given.scopes is None else given.scopes, time(), given.key,
        )  # fmt: skip
        await self.store.put(_key(link.server, link.user), made)
        if before is None:
            about = {"server": link.server, "user": link.user, "issuer": link.issuer}
            self.say(
                ConnectionCreated(id=_id("made"), at=time(), customer=DEFAULT_CUSTOMER, **about)
            )
        return made

    async def _drop(self, found: Connection, reason: str, by: str = "") -> None:
        await self.store.drop(Connection, _key(found.server, found.user))
        about = {"server": found.server, "user": found.user, "issuer": found.issuer}
        self.say(
            ConnectionEnded(
                id=_id("ended"), at=time(), customer=DEFAULT_CUSTOMER, reason=reason, by=by, **about
            )
        )

    async def _alone(self, name: str, server: Server, user: str, renew: Renew) -> Connection | None:
        """Renew it while nobody else does, here or elsewhere, seeing it as it is by then."""
        async with self.turns.alone(_key(name, user)):
            return await renew(await self.get(name, server, user))

    def _place(self, server: Server, url: str, issuer: str) -> TokenEndpoint:
        return TokenEndpoint(url, issuer, self.clients.is_named(url, server))


def link_for(
    name: str, server: Server, user: str, found: Found, client: Identity, scopes: tuple[str, ...]
) -> Link:
    """What is asked for, where, and in whose name. Pure but for its id."""
    shows = bool(client.shown)
    return Link(
        secrets.token_urlsafe(24), name, user, server.oauth_place, found.issuer,
        found.resource, found.url("authorization_endpoint"),
        found.place("token_endpoint", shows=shows), found.place("revocation_endpoint", shows=shows),
        found.says_issuer, client.id, client.method, scopes, time() + 600.0,
        wants_bound(server, found),
    )  # fmt: skip


def wants_bound(server: Server, found: Found) -> bool:
    """Whether tokens are to be bound to a key: as declared, else where that is offered. Pure."""
    if server.oauth is not None and server.oauth.dpop is not None:
        return server.oauth.dpop
    if server.is_process or server.grpc:  # who would prove it
        return False
    return found.has("dpop_signing_alg_values_supported", ALGORITHM)


def about_to_end(connection: Connection) -> bool:
    """Whether it is time for the next token: early, but not for one that lasts a minute."""
    lasts = max(connection.ends - connection.made, 0.0)
    return connection.ends - time() < min(SOON_SECONDS, max(LEAST_SECONDS, lasts / 4))


def _is_of_use(connection: Connection, server: Server) -> bool:
    """Whether it is for the address that is declared now, and bound to a key if it must be."""
    must = server.oauth is not None and server.oauth.dpop
    return connection.url == server.oauth_place and bool(connection.key or not must)


def _fresh(link: Link) -> str:
    """A key of the connection's own, where its token is to be bound to one."""
    return ProofKey.new().kept if link.bound else ""


def _check_bound(server: Server, given: Given) -> None:
    if server.oauth is not None and server.oauth.dpop and not given.key:
        raise RefusedError("", "it binds its tokens to no key, which oauth.dpop wants")


def _meant(resource: str, scopes: tuple[str, ...]) -> dict[str, str]:
    told = {"resource": resource} if resource else {}
    return told | ({"scope": " ".join(scopes)} if scopes else {})


def _key(name: str, user: str) -> str:
    return f"{name} {user}"


def _id(what: str) -> str:
    return f"{secrets.token_hex(12)}.{what}"
