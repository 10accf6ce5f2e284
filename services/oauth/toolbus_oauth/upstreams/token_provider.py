"""Provider of tokens for upstream servers, or of a link at which the person consents."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import time

from msgspec.structs import replace

from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import UpstreamTokenQuery, UpstreamTokenReply
from toolbus_common.egress import EgressError, target_of
from toolbus_common.errors import InvalidError
from toolbus_oauth.oauth_client.identity import TokenRequestError
from toolbus_oauth.oauth_client.scope_values import scopes_in
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.client_identity import (
    ClientIdentities,
    is_issued,
    is_machine,
    needs_no_consent,
)
from toolbus_oauth.upstreams.connection_repository import (
    MIN_SECONDS,
    ConnectionRepository,
    about_to_end,
    link_for,
)
from toolbus_oauth.upstreams.connections.records import Connection, Link, OpenLink
from toolbus_oauth.upstreams.discovery import (
    AuthorizationServer,
    Challenge,
    Discovery,
    DiscoveryError,
    challenge_of,
)
from toolbus_oauth.upstreams.id_jag import SignInRequiredError
from toolbus_oauth.upstreams.issued_tokens import IssuedTokens

OFFLINE = "offline_access"
STEP_UP = "insufficient_scope"
LEFT_SECONDS = 120.0  # a link with less time left is not reused


@dataclass(frozen=True, slots=True)
class TokenProvider:
    """Provider of upstream tokens and links; `issuer` is the URL of this gateway."""

    issuer: str
    connections: ConnectionRepository
    discovery: Discovery
    clients: ClientIdentities
    brief: Store
    config: Callable[[], Configuration]
    issued: IssuedTokens

    async def answer(self, query: UpstreamTokenQuery) -> UpstreamTokenReply:
        """Return a token, a link or a reason. Raises `InvalidError` for a server without oauth."""
        server = self.config().servers.get(query.server)
        if server is None or server.oauth is None:
            raise InvalidError(f"No server '{query.server}' is configured with 'oauth'; add it.")
        if is_issued(server):
            return self.issued.answer(query, server)
        try:
            return await self._answer(query, server)
        except DiscoveryError as error:
            return UpstreamTokenReply(
                reason=f"Authorization at '{query.server}' is impossible: {error}."
            )
        except TokenRequestError as error:
            reason = f"The authorization server of '{query.server}' issued no token: {error}"
            return UpstreamTokenReply(reason=f"{reason}; retry, or ask its operator.")

    async def link(self, name: str, user: str = "") -> str:
        """Return a link at which a person or operator consents. Raises `InvalidError`."""
        server = self.config().servers.get(name)
        if server is None or server.oauth is None or is_machine(server) or is_issued(server):
            raise InvalidError(f"The server '{name}' needs no consent; call its tools directly.")
        if (server.oauth.tokens == "user") is not bool(user):
            raise InvalidError(
                f"Each user connects to '{name}' individually, by calling one of its tools."
            )
        try:
            found = await self.discovery.found(server, Challenge())
            last = await self._open_link(name, server, user)
            # An open link already requests the scopes that a rejected call needs.
            scopes = last.scopes if last is not None else _requested_scopes(server, found, ())
            return await self._new_link(name, server, user, found, scopes)
        except DiscoveryError as error:
            raise InvalidError(f"Authorization at '{name}' is impossible: {error}.") from error

    async def _answer(self, query: UpstreamTokenQuery, server: Server) -> UpstreamTokenReply:
        challenge = challenge_of(query.challenge)
        user = self._user(query, server)
        connection = await self._connection(query, server, user)
        refused = connection is not None and _digest(connection.token) == query.rejected
        if challenge.error == STEP_UP and refused and connection is not None:
            return await self._step_up(query, server, user, connection, challenge)
        if connection is not None and query.challenge:
            connection = await self._check_issuer(server, connection, challenge)
        if connection is not None and (refused or about_to_end(connection)):
            if needs_no_consent(server):
                return await self._direct(query, server, challenge, connection)
            connection = await self.connections.renew(
                query.server, server, connection, refused=refused
            )
        if connection is not None:
            return _reply(connection)
        if needs_no_consent(server) and (user or is_machine(server)):
            return await self._direct(query, server, challenge, None)
        return await self._consent(query, server, user, challenge, ())

    async def _connection(
        self, query: UpstreamTokenQuery, server: Server, user: str
    ) -> Connection | None:
        if query.listing and server.oauth is not None and server.oauth.tokens == "user":
            return await self.connections.for_listing(query.server, server)
        return await self.connections.get(query.server, server, user)

    async def _check_issuer(
        self, server: Server, connection: Connection, challenge: Challenge
    ) -> Connection | None:
        """Return the connection; end it and return None if the server's issuer has changed."""
        found = await self.discovery.found(server, challenge)
        if found.issuer == connection.issuer:
            return connection
        await self.connections.end(server, connection, "the server has another issuer now", "")
        return None

    async def _direct(
        self,
        query: UpstreamTokenQuery,
        server: Server,
        challenge: Challenge,
        before: Connection | None,
        more: tuple[str, ...] = (),
    ) -> UpstreamTokenReply:
        """Return a token without a person's consent, or a link if the person must sign in."""
        user = before.user if before is not None else self._user(query, server)
        found = await self.discovery.found(server, challenge)
        digest = _digest(before.token) if before is not None else ""
        refused = before.token if before is not None and digest == query.rejected else ""
        scopes = _requested_scopes(server, found, (*challenge.scopes, *more))
        try:
            made = await self.connections.obtain(query.server, server, user, found, scopes, refused)
        except SignInRequiredError:
            link = await self._new_link(query.server, server, user, found, scopes)
            return UpstreamTokenReply(link=link)
        except TokenRequestError as error:
            if before is None or refused or error.for_good or before.ends < time() + MIN_SECONDS:
                raise
            made = before  # the issuer is unavailable, and the current token is still valid
        if made is None:
            return UpstreamTokenReply(reason=f"'{query.server}' issued no token; retry.")
        return _reply(made)

    async def vouched(self, link: Link, server: Server) -> None:
        """Obtain a person's token with an assertion of the person's provider, and store it.

        Raises `SignInRequiredError`, `DiscoveryError` or `TokenRequestError`.
        """
        found = await self.discovery.found(server, Challenge())
        await self.connections.obtain(link.server, server, link.user, found, link.scopes, "")

    async def _step_up(
        self,
        query: UpstreamTokenQuery,
        server: Server,
        user: str,
        connection: Connection,
        challenge: Challenge,
    ) -> UpstreamTokenReply:
        """Request the missing scopes in addition to the earlier scopes.

        If the missing scopes were already requested, return a reason instead.
        """
        if set(challenge.scopes) <= set(connection.requested):
            return UpstreamTokenReply(
                reason=f"'{query.server}' denied the call for a missing scope that was already "
                "requested; ask its operator which scopes this account can have."
            )
        more = tuple(dict.fromkeys((*connection.requested, *challenge.scopes)))
        if needs_no_consent(server):
            return await self._direct(query, server, challenge, connection, more)
        return await self._consent(query, server, user, challenge, more)

    async def _consent(
        self,
        query: UpstreamTokenQuery,
        server: Server,
        user: str,
        challenge: Challenge,
        more: tuple[str, ...],
    ) -> UpstreamTokenReply:
        if query.listing and not user and server.oauth and server.oauth.tokens == "user":
            who = "The listing account" if server.oauth.listing else "No user"
            return UpstreamTokenReply(reason=f"{who} has connected to '{query.server}' yet.")
        found = await self.discovery.found(server, challenge)
        scopes = more or _requested_scopes(server, found, challenge.scopes)
        link = await self._new_link(query.server, server, user, found, scopes)
        if not user:
            return UpstreamTokenReply(
                reason=f"'{query.server}' needs an operator's consent; ask an operator to run "
                f"'toolbus connections connect {query.server}'."
            )
        return UpstreamTokenReply(link=link)

    async def _new_link(
        self,
        name: str,
        server: Server,
        user: str,
        found: AuthorizationServer,
        scopes: tuple[str, ...],
    ) -> str:
        """Return a link for these scopes; reuse an unexpired link for the same request."""
        if not needs_no_consent(server):
            _check_endpoints(found)
        client = await self.clients.at(server, found)
        last, wanted = await self._open_link(name, server, user), (found.issuer, scopes, client.id)
        if last is not None and (last.issuer, last.scopes, last.client_id) == wanted:
            return self._page(last.id)
        client = await self.connections.verified_client(server, found, client)
        made = link_for(name, server, user, found, client, scopes)
        if needs_no_consent(server):
            made = replace(made, authorize=self._provider(server))  # the person signs in there
        await self.brief.put(made.id, made)
        opened = OpenLink(made.id, made.url, made.issuer, scopes, made.expires, made.client_id)
        await self.brief.put(_link_name(name, user), opened)
        return self._page(made.id)

    async def _open_link(self, name: str, server: Server, user: str) -> OpenLink | None:
        """Return the link for the server's current URL, or None if too little time is left."""
        last = await self.brief.get(OpenLink, _link_name(name, user))
        if last is None or last.url != server.oauth_place:
            return None
        return last if last.expires - time() > LEFT_SECONDS else None

    def _page(self, link: str) -> str:
        return f"{self.issuer}/oauth/connect/{link}"

    def _provider(self, server: Server) -> str:
        issuer = self.config().issuers.get(server.oauth.provider) if server.oauth else None
        return issuer.url if issuer is not None else ""

    @staticmethod
    def _user(query: UpstreamTokenQuery, server: Server) -> str:
        own = server.oauth is not None and server.oauth.tokens == "user"
        return query.user if own else ""


async def link_of(brief: Store, name: str) -> Link | None:
    """Return the link with this id, or None if it is unknown or has expired."""
    found = await brief.get(Link, name)
    return found if found is not None and found.expires > time() else None


def _requested_scopes(
    server: Server, found: AuthorizationServer, challenged: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the challenge's scopes, or all listed scopes, and the configured scopes."""
    offered = challenged or found.scopes
    configured = server.oauth.scopes if server.oauth is not None else ()
    if found.has("scopes_supported", OFFLINE) and not needs_no_consent(server):
        configured = (*configured, OFFLINE)
    return tuple(dict.fromkeys(scopes_in([*offered, *configured])))


def _check_endpoints(found: AuthorizationServer) -> None:
    """Check that the endpoints are safe for a browser redirect. Raises `DiscoveryError`."""
    if not found.has("code_challenge_methods_supported", "S256"):
        raise DiscoveryError("its authorization server does not support PKCE with S256")
    for name in ("authorization_endpoint", "token_endpoint"):
        try:
            target_of(found.url(name))
        except EgressError as error:
            raise DiscoveryError(f"its {name}: {error}") from error


def _reply(connection: Connection) -> UpstreamTokenReply:
    return UpstreamTokenReply(token=connection.token, key=connection.key, ends=connection.ends)


def _link_name(name: str, user: str) -> str:
    return f"{name} {user}"


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()
