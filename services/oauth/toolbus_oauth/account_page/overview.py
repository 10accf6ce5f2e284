"""Overview of a person's grants and connections, and their revocation."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time

from toolbus_common.config import Configuration
from toolbus_common.contracts import PageReply
from toolbus_oauth.account_page import page as accountpage
from toolbus_oauth.server.grants import Grants
from toolbus_oauth.storage.records import Grant, Person
from toolbus_oauth.upstreams.connection_repository import ConnectionRepository
from toolbus_oauth.upstreams.connections.records import Connection
from toolbus_oauth.web.errors import PageError

ENDED = "the user revoked it"


@dataclass(frozen=True, slots=True)
class AccessOverview:
    """Grants and connections of all people; each person can see and end only personal access."""

    grants: Grants
    connections: ConnectionRepository
    config: Callable[[], Configuration]

    async def page(self, person: Person, sealed: str) -> PageReply:
        """Render a person's grants and connections; each has a button that ends it."""
        grants = sorted(await self._grants(person), key=lambda each: each.made, reverse=True)
        connections = await self._connections(person)
        return accountpage.access_page(person.user, sealed, grants, connections)

    async def end_grant(self, person: Person, grant_id: str) -> None:
        """End a person's grant. Raises `PageError` (404) if the person has no such grant."""
        if not any(each.id == grant_id for each in await self._grants(person)):
            raise PageError(
                "You have not allowed this program, or its access has already ended.", 404
            )
        await self.grants.end(grant_id, ENDED)

    async def end_connection(self, person: Person, server: str) -> None:
        """End a person's connection to a server. Raises `PageError` (404) if there is none."""
        for each in await self._connections(person):
            if each.server == server:
                configured = self.config().servers.get(server)
                await self.connections.disconnect(configured, each, ENDED)
                return
        raise PageError(
            "You have not connected this service, or the connection has already ended.", 404
        )

    async def _grants(self, person: Person) -> list[Grant]:
        """Return the grants of a person's issuer and user name; two issuers can use one name."""
        whose = (person.issuer, person.user)
        now, every = time(), await self.grants.store.every(Grant)
        return [g for g in every if (g.person.issuer, g.person.user) == whose and g.ends > now]

    async def _connections(self, person: Person) -> list[Connection]:
        return [each for each in await self.connections.every() if each.user == person.user]
