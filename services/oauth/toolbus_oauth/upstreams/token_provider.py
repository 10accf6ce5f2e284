"""Answers executor: the token for a server, or the page at which its person consents."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import time

from msgspec.structs import replace

from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import UpstreamTokenQuery, UpstreamTokenReply
from toolbus_common.egress import EgressError, target_of
from toolbus_common.errors import InvalidError
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.client_identity import Clienthood, asks_nobody, is_machine
from toolbus_oauth.upstreams.connection_repository import (
    LEAST_SECONDS,
    Connections,
    about_to_end,
    link_for,
)
from toolbus_oauth.upstreams.connections.records import Connection, Link, OpenLink
from toolbus_oauth.upstreams.discovery import (
    Challenge,
    Discovery,
    DiscoveryError,
    Found,
    challenge_of,
    scopes_in,
)
from toolbus_oauth.upstreams.id_jag import UnvouchedError
from toolbus_oauth.upstreams.token_client import RefusedError

OFFLINE = "offline_access"
STEP_UP = "insufficient_scope"
LEFT_SECONDS = 120.0  # a link that lasts no longer is not handed out again


@dataclass(frozen=True, slots=True)
class Telling:
    """What there is to tell; `issuer` is this gateway's URL."""

    issuer: str
    connections: Connections
    discovery: Discovery
    clients: Clienthood
    brief: Store
    declared: Callable[[], Configuration]

    async def answer(self, asked: UpstreamTokenQuery) -> UpstreamTokenReply:
        """A token, a link, or a sentence. Raises `InvalidError` for a server that wants none."""
        server = self.declared().servers.get(asked.server)
        if server is None or server.oauth is None:
            raise InvalidError(f"No server '{asked.server}' is declared with oauth.")
        try:
            return await self._answer(asked, server)
        except DiscoveryError as error:
            return UpstreamTokenReply(reason=f"{asked.server} cannot be authorized at: {error}.")
        except RefusedError as error:
            said = f"The authorization server of {asked.server} gives no token: {error}"
            return UpstreamTokenReply(reason=f"{said}; retry, or ask its operator.")

    async def link(self, name: str, user: str = "") -> str:
        """A page at which somebody consents. Raises `InvalidError`."""
        server = self.declared().servers.get(name)
        if server is None or server.oauth is None or is_machine(server):
            raise InvalidError(f"Nobody consents for the server '{name}'.")
        if (server.oauth.tokens == "user") is not bool(user):
            raise InvalidError(f"At '{name}' each person connects alone: by a call of a tool.")
        try:
            found = await self.discovery.found(server, Challenge())
            last = await self._open(name, server, user)
            # What is open asks for what a call was refused for.
            scopes = last.scopes if last is not None else _wanted(server, found, ())
            return await self._linked(name, server, user, found, scopes)
        except DiscoveryError as error:
            raise InvalidError(f"{name} cannot be authorized at: {error}.") from error

    async def _answer(self, asked: UpstreamTokenQuery, server: Server) -> UpstreamTokenReply:
        challenge = challenge_of(asked.challenge)
        user = self._user(asked, server)
        connection = await self._connection(asked, server, user)
        refused = connection is not None and _digest(connection.token) == asked.refused
        if challenge.error == STEP_UP and refused and connection is not None:
            return await self._step_up(asked, server, user, connection, challenge)
        if connection is not None and asked.challenge:
            connection = await self._still_there(server, connection, challenge)
        if connection is not None and (refused or about_to_end(connection)):
            if asks_nobody(server):
                return await self._direct(asked, server, challenge, connection)
            connection = await self.connections.renewed(
                asked.server, server, connection, refused=refused
            )
        if connection is not None:
            return _told(connection)
        if asks_nobody(server) and (user or is_machine(server)):
            return await self._direct(asked, server, challenge, None)
        return await self._consent(asked, server, user, challenge, ())

    async def _connection(
        self, asked: UpstreamTokenQuery, server: Server, user: str
    ) -> Connection | None:
        if asked.listing and server.oauth is not None and server.oauth.tokens == "user":
            return await self.connections.lister(asked.server, server)
        return await self.connections.get(asked.server, server, user)

    async def _still_there(
        self, server: Server, connection: Connection, challenge: Challenge
    ) -> Connection | None:
        """The connection, unless the server is vouched for by another issuer by now."""
        found = await self.discovery.found(server, challenge)
        if found.issuer == connection.issuer:
            return connection
        await self.connections.end(server, connection, "the server has another issuer now", "")
        return None

    async def _direct(
        self,
        asked: UpstreamTokenQuery,
        server: Server,
        challenge: Challenge,
        before: Connection | None,
        more: tuple[str, ...] = (),
    ) -> UpstreamTokenReply:
        """A token without anybody's consent; where nobody vouches for its person, a page."""
        user = before.user if before is not None else self._user(asked, server)
        found = await self.discovery.found(server, challenge)
        digest = _digest(before.token) if before is not None else ""
        refused = before.token if before is not None and digest == asked.refused else ""
        scopes = _wanted(server, found, (*challenge.scopes, *more))
        try:
            made = await self.connections.direct(asked.server, server, user, found, scopes, refused)
        except UnvouchedError:
            link = await self._linked(asked.server, server, user, found, scopes)
            return UpstreamTokenReply(link=link)
        except RefusedError as error:
            if before is None or refused or error.for_good or before.ends < time() + LEAST_SECONDS:
                raise
            made = before  # who gives the next one is away; this one lasts a while
        if made is None:
            return UpstreamTokenReply(reason=f"{asked.server} gives no token; retry.")
        return _told(made)

    async def vouched(self, link: Link, server: Server) -> None:
        """Get the token of somebody whom their provider vouches for.

        Raises `UnvouchedError`, `DiscoveryError` or `RefusedError`.
        """
        found = await self.discovery.found(server, Challenge())
        await self.connections.direct(link.server, server, link.user, found, link.scopes, "")

    async def _step_up(
        self,
        asked: UpstreamTokenQuery,
        server: Server,
        user: str,
        connection: Connection,
        challenge: Challenge,
    ) -> UpstreamTokenReply:
        """Ask for more, beside what was asked before: once for the same."""
        if set(challenge.scopes) <= set(connection.asked):
            return UpstreamTokenReply(
                reason=f"{asked.server} refuses for want of a scope, though it was asked for "
                "before; ask its operator what this account may do."
            )
        more = tuple(dict.fromkeys((*connection.asked, *challenge.scopes)))
        if asks_nobody(server):
            return await self._direct(asked, server, challenge, connection, more)
        return await self._consent(asked, server, user, challenge, more)

    async def _consent(
        self,
        asked: UpstreamTokenQuery,
        server: Server,
        user: str,
        challenge: Challenge,
        more: tuple[str, ...],
    ) -> UpstreamTokenReply:
        if asked.listing and not user and server.oauth and server.oauth.tokens == "user":
            who = "The account that lists it has not" if server.oauth.listing else "Nobody has"
            return UpstreamTokenReply(reason=f"{who} connected to {asked.server} yet.")
        found = await self.discovery.found(server, challenge)
        scopes = more or _wanted(server, found, challenge.scopes)
        link = await self._linked(asked.server, server, user, found, scopes)
        if not user:
            return UpstreamTokenReply(
                reason=f"{asked.server} waits for an operator's consent; have one run "
                f"'toolbus connections connect {asked.server}'."
            )
        return UpstreamTokenReply(link=link)

    async def _linked(
        self, name: str, server: Server, user: str, found: Found, scopes: tuple[str, ...]
    ) -> str:
        """A link for this, the one that is open if there is one."""
        if not asks_nobody(server):
            _check_can(found)
        client = await self.clients.at(server, found)
        last, wanted = await self._open(name, server, user), (found.issuer, scopes, client.id)
        if last is not None and (last.issuer, last.scopes, last.client_id) == wanted:
            return self._page(last.id)
        client = await self.connections.tried(server, found, client)
        made = link_for(name, server, user, found, client, scopes)
        if asks_nobody(server):
            made = replace(made, authorize=self._provider(server))  # they sign in there
        await self.brief.put(made.id, made)
        opened = OpenLink(made.id, made.url, made.issuer, scopes, made.expires, made.client_id)
        await self.brief.put(_place(name, user), opened)
        return self._page(made.id)

    async def _open(self, name: str, server: Server, user: str) -> OpenLink | None:
        """The link that is open for them to where the server is now, if it lasts a while yet."""
        last = await self.brief.get(OpenLink, _place(name, user))
        if last is None or last.url != server.oauth_place:
            return None
        return last if last.expires - time() > LEFT_SECONDS else None

    def _page(self, link: str) -> str:
        return f"{self.issuer}/oauth/connect/{link}"

    def _provider(self, server: Server) -> str:
        issuer = self.declared().issuers.get(server.oauth.provider) if server.oauth else None
        return issuer.url if issuer is not None else ""

    @staticmethod
    def _user(asked: UpstreamTokenQuery, server: Server) -> str:
        own = server.oauth is not None and server.oauth.tokens == "user"
        return asked.user if own else ""


async def link_of(brief: Store, name: str) -> Link | None:
    """The link of an id, while it is good."""
    found = await brief.get(Link, name)
    return found if found is not None and found.expires > time() else None


def _wanted(server: Server, found: Found, challenged: tuple[str, ...]) -> tuple[str, ...]:
    """What to ask for: what the server wants now, else all it knows; none where it says nothing."""
    told = challenged or found.scopes
    declared = server.oauth.scopes if server.oauth is not None else ()
    if found.has("scopes_supported", OFFLINE) and not asks_nobody(server):
        declared = (*declared, OFFLINE)
    return tuple(dict.fromkeys(scopes_in([*told, *declared])))


def _check_can(found: Found) -> None:
    """See that a person can be sent there safely. Raises `DiscoveryError`."""
    if not found.has("code_challenge_methods_supported", "S256"):
        raise DiscoveryError("its authorization server does not say that it takes PKCE with S256")
    for name in ("authorization_endpoint", "token_endpoint"):
        try:
            target_of(found.url(name))
        except EgressError as error:
            raise DiscoveryError(f"of its {name}: {error}") from error


def _told(connection: Connection) -> UpstreamTokenReply:
    return UpstreamTokenReply(token=connection.token, key=connection.key, ends=connection.ends)


def _place(name: str, user: str) -> str:
    return f"{name} {user}"


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()
