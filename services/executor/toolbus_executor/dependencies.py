"""Dependencies of upstream connections: dialers, secrets, settings and large results."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from toolbus_common.config import Server
from toolbus_common.errors import UpstreamDeadError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.secrets import SecretError, Secrets, Values
from toolbus_executor.credentials.oauth_token import Bearer, RequestToken
from toolbus_executor.guards.call_guards import CallGuards
from toolbus_executor.guards.held_secrets import HeldSecrets, secrets_in
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.results.large.store import LargeResultStore
from toolbus_executor.settings import Settings
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.base import Upstream, UpstreamCallbacks
from toolbus_executor.upstreams.factory import reached, texts_of
from toolbus_executor.upstreams.oauth.api_tokens import TakesTokens, TokenView
from toolbus_executor.upstreams.oauth.upstream import Authorized, Connected
from toolbus_executor.upstreams.protocol_families import create_in_families
from toolbus_executor.upstreams.replicas.upstream import ReplicatedUpstream
from toolbus_executor.upstreams.sessions.separate_sessions import Separation


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Dependencies that all servers share.

    `starts` limits the number of processes that start for the first time at once.
    """

    dialers: DialerFactory
    large_results: LargeResultStore
    settings: Settings
    starts: asyncio.Semaphore
    secrets: Secrets
    token: RequestToken
    guards: CallGuards
    held: HeldSecrets = field(default_factory=HeldSecrets)

    async def read_secrets(self, server: Server) -> Values:
        """Return the secrets that a server's configuration refers to.

        If the server is configured with `identity`, load the signing key as well.

        Raises:
            UpstreamDeadError: a secret is unavailable. The message contains its name, not its
                value.
            UnavailableError: the signing key is unavailable.

        """
        if server.identity is not None:
            await self.dialers.keys.wait_until_ready()
        try:
            return await self.secrets.read(texts_of(server))
        except SecretError as error:
            raise UpstreamDeadError(str(error), sent=False) from error

    def create_upstream(
        self,
        name: str,
        server: Server,
        notifications: UpstreamCallbacks,
        secrets: Values,
        events: EventPublisher,
        spills: SpillRegistry,
        separation: Separation | None = None,
    ) -> Upstream:
        """Return the adapter of a configured server, or of all its replicas.

        It is not opened yet.
        """
        self.held.renew(f"server {name}", [*secrets.values(), *secrets_in(server.headers, secrets)])
        if server.replicas:
            upstream = ReplicatedUpstream(
                name, server, notifications, events, self.dialers, secrets, spills
            )
            upstream.separation = separation
            if server.oauth is not None:
                upstream.authorize = partial(self._authorized, name, server, separation)
            return upstream
        reach = partial(
            reached,
            ways=self.dialers,
            found=secrets,
            spills=spills,
            settings=self.settings,
            name=name,
        )
        if server.oauth is not None:
            return self._authorized(name, server, separation, server, notifications, reach)
        return create_in_families(server, notifications, reach, separation)

    def _authorized(
        self,
        name: str,
        server: Server,
        separation: Separation | None,
        at: Server,
        notifications: UpstreamCallbacks,
        reach: Callable[..., Upstream],
        location: str = "",
    ) -> Upstream:
        """Return the adapter of a server at one address; its calls contain access tokens."""
        described: list[TakesTokens] = []  # the description of an API is read once for all callers

        def make(bearer: Bearer, notifications: UpstreamCallbacks) -> Connected:
            if described:
                return TokenView(described[0], bearer)

            where = f"{location} {bearer.user}" if location else bearer.user
            with_token = partial(reach, bearer=bearer)
            upstream = create_in_families(at, notifications, with_token, separation, where)
            if server.is_described:
                described.append(cast("TakesTokens", upstream))
            return cast("Connected", upstream)

        return Authorized(name, server, self.token, make, notifications)
