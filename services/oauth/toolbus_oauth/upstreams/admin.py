"""Administration of the connections to upstream servers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolbus_common.config import Configuration
from toolbus_common.contracts import IdentityRequest
from toolbus_common.errors import UnknownEntryError
from toolbus_oauth.upstreams.connection_repository import ConnectionRepository
from toolbus_oauth.upstreams.connections.records import Connection
from toolbus_oauth.upstreams.token_provider import TokenProvider

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ConnectionsAdmin:
    """Handler of operators' requests about connections."""

    connections: ConnectionRepository
    token_provider: TokenProvider
    config: Callable[[], Configuration]

    async def rows(self, request: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        """Return every connection, without its tokens."""
        return [_row(each) for each in await self.connections.every()]

    async def begin(self, request: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        """Return a link at which an operator consents for all users."""
        return [{"link": await self.token_provider.link(request.name)}]

    async def end(self, request: IdentityRequest, about: Row) -> list[Row]:
        """End a user's connection to a server; an empty user selects the shared connection."""
        user = str(about.get("user", ""))
        every = await self.connections.every()
        found = [each for each in every if (each.server, each.user) == (request.name, user)]
        if not found:
            whose = f"of '{user}'" if user else "for all users"
            raise UnknownEntryError(
                f"There is no connection to '{request.name}' {whose}; 'toolbus connections list' "
                "shows all."
            )
        server = self.config().servers.get(request.name)
        await self.connections.disconnect(server, found[0], "an operator ended it", request.by)
        return []

    async def end_of(self, user: str, by: str) -> None:
        """End all connections of a removed user, before the name can be used again."""
        # The assertions are deleted first, so that no concurrent call creates a connection again.
        await self.connections.assertions.forget(user)
        for each in await self.connections.every():
            if each.user == user:
                server = self.config().servers.get(each.server)
                await self.connections.end(server, each, "the account was removed", by)


def _row(connection: Connection) -> Row:
    return {
        "server": connection.server,
        "user": connection.user,
        "issuer": connection.issuer,
        "scopes": list(connection.scopes),
        "renews": bool(connection.refresh),
        "bound": bool(connection.key),
        "ends": int(connection.ends),
        "made": int(connection.made),
    }
