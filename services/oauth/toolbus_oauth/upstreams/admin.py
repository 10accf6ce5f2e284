"""What operators wish of connections: see them, begin one for everybody, end one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolbus_common.config import Configuration
from toolbus_common.contracts import IdentityRequest
from toolbus_common.errors import UnknownEntryError
from toolbus_oauth.upstreams.connection_repository import Connections
from toolbus_oauth.upstreams.connections.records import Connection
from toolbus_oauth.upstreams.token_provider import Telling

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counter:
    """Does what they wish."""

    connections: Connections
    telling: Telling
    declared: Callable[[], Configuration]

    async def rows(self, asked: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        """Every connection, without its tokens."""
        return [_row(each) for each in await self.connections.every()]

    async def begin(self, asked: IdentityRequest, about: Row) -> list[Row]:  # noqa: ARG002
        """A link at which an operator consents for everybody."""
        return [{"link": await self.telling.link(asked.name)}]

    async def end(self, asked: IdentityRequest, about: Row) -> list[Row]:
        """End the connection to a server of one user, or (empty) the shared one."""
        user = str(about.get("user", ""))
        every = await self.connections.every()
        found = [each for each in every if (each.server, each.user) == (asked.name, user)]
        if not found:
            whose = f"of '{user}'" if user else "for everybody"
            raise UnknownEntryError(f"There is no connection to '{asked.name}' {whose}.")
        server = self.declared().servers.get(asked.name)
        await self.connections.take_back(server, found[0], "an operator ended it", asked.by)
        return []

    async def end_of(self, user: str, by: str) -> None:
        """End all connections of somebody who is no more: the next of that name gets none."""
        await self.connections.vouching.forget(user)  # or a call meanwhile began one anew
        for each in await self.connections.every():
            if each.user == user:
                server = self.declared().servers.get(each.server)
                await self.connections.end(server, each, "the account ended", by)


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
