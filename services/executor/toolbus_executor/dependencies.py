"""What an executor reaches servers with: ways, secrets, settings, and room for large results."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from toolbus_common.config import Server
from toolbus_common.errors import UpstreamDeadError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.secrets import SecretError, Secrets, Values
from toolbus_executor.credentials.oauth_token import Ask, Bearer
from toolbus_executor.results.large.spill_registry import Spills
from toolbus_executor.results.large.store import Vault
from toolbus_executor.settings import Settings
from toolbus_executor.transport.dialer_factory import Ways
from toolbus_executor.upstreams.base import News, Upstream
from toolbus_executor.upstreams.factory import reached, texts_of
from toolbus_executor.upstreams.oauth.api_tokens import TakesTokens, TokenView
from toolbus_executor.upstreams.oauth.upstream import Authorized, Connected
from toolbus_executor.upstreams.protocol_families import reached_in_families
from toolbus_executor.upstreams.replicas.upstream import Replicated
from toolbus_executor.upstreams.sessions.separate_sessions import Separation


@dataclass(frozen=True, slots=True)
class Means:
    """`starts` bounds how many processes begin at once that are not known yet."""

    ways: Ways
    vault: Vault
    settings: Settings
    starts: asyncio.Semaphore
    secrets: Secrets
    token: Ask

    async def found(self, declared: Server) -> Values:
        """What a declaration refers to, where it is kept.

        Where it is to be told who calls, the key for that is at hand afterwards.

        Raises:
            UpstreamDeadError: one of them cannot be had; the message names it and no value.
            UnavailableError: there is no such key.

        """
        if declared.identity is not None:
            await self.ways.keys.ready()
        try:
            return await self.secrets.read(texts_of(declared))
        except SecretError as error:
            raise UpstreamDeadError(str(error), sent=False) from error

    def reached(
        self,
        name: str,
        declared: Server,
        news: News,
        found: Values,
        events: EventPublisher,
        spills: Spills,
        separation: Separation | None = None,
    ) -> Upstream:
        """The way to a declared server, or to all its replicas, not opened yet."""
        if declared.replicas:
            made = Replicated(name, declared, news, events, self.ways, found, spills)
            made.separation = separation
            if declared.oauth is not None:
                made.authorize = partial(self._authorized, name, declared, separation)
            return made
        reach = partial(
            reached, ways=self.ways, found=found, spills=spills, settings=self.settings, name=name
        )
        if declared.oauth is not None:
            return self._authorized(name, declared, separation, declared, news, reach)
        return reached_in_families(declared, news, reach, separation)

    def _authorized(
        self,
        name: str,
        declared: Server,
        separation: Separation | None,
        at: Server,
        news: News,
        reach: Callable[..., Upstream],
        place: str = "",
    ) -> Upstream:
        """Make the way to a server whose calls carry tokens; `at` has one of its addresses."""
        described: list[TakesTokens] = []  # an API is described once, whoever calls it

        def make(bearer: Bearer, heard: News) -> Connected:
            if described:
                return TokenView(described[0], bearer)

            where = f"{place} {bearer.user}" if place else bearer.user
            with_token = partial(reach, bearer=bearer)
            made = reached_in_families(at, heard, with_token, separation, where)
            if declared.openapi or declared.graphql or declared.grpc:
                described.append(cast("TakesTokens", made))
            return cast("Connected", made)

        return Authorized(name, declared, self.token, make, news)
