"""What somebody allowed: programs that act for them, servers that are called with their token."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time

from toolbus_common.config import Configuration
from toolbus_common.contracts import PageReply
from toolbus_oauth.account_page import page as accountpage
from toolbus_oauth.server.grants import Grants
from toolbus_oauth.storage.records import Grant, Person
from toolbus_oauth.upstreams.connection_repository import Connections
from toolbus_oauth.upstreams.connections.records import Connection
from toolbus_oauth.web.errors import PageError

ENDED = "whom it was for ended it"


@dataclass(frozen=True, slots=True)
class Holdings:
    """Everybody's; each sees and ends their own alone."""

    grants: Grants
    connections: Connections
    declared: Callable[[], Configuration]

    async def page(self, person: Person, sealed: str) -> PageReply:
        """All of somebody's, each with a button that ends it."""
        grants = sorted(await self._grants(person), key=lambda each: each.made, reverse=True)
        connections = await self._connections(person)
        return accountpage.shown(person.user, sealed, grants, connections)

    async def end_grant(self, person: Person, grant_id: str) -> None:
        """Let a program do nothing more for somebody. Raises `PageError`: it is not theirs."""
        if not any(each.id == grant_id for each in await self._grants(person)):
            raise PageError("There is no such program among those you allowed.", 404)
        await self.grants.end(grant_id, ENDED)

    async def end_connection(self, person: Person, server: str) -> None:
        """Have a server called no longer with somebody's token. Raises `PageError` likewise."""
        for each in await self._connections(person):
            if each.server == server:
                declared = self.declared().servers.get(server)
                await self.connections.take_back(declared, each, ENDED)
                return
        raise PageError("There is no such service among those you connected.", 404)

    async def _grants(self, person: Person) -> list[Grant]:
        """Two issuers' people of one name are two."""
        whose = (person.issuer, person.user)
        now, every = time(), await self.grants.store.every(Grant)
        return [g for g in every if (g.person.issuer, g.person.user) == whose and g.ends > now]

    async def _connections(self, person: Person) -> list[Connection]:
        return [each for each in await self.connections.every() if each.user == person.user]
