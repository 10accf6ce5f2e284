"""The executor service: calls upstreams, and knows what they offer.

hears   CallAdmitted, per server, and from other executors; CallCancelled; the buckets tb_config
        and tb_pins; ConnectionCreated; ClientMessage
says    the frames of each call's answer; CallCompleted, CallFailed, CallExtended; ServerConnected,
        ServerLost, ServerFaulted, BreakerOpened, BreakerClosed; DefinitionPinned,
        DefinitionChanged; ServerNotification
owns    the buckets tb_catalogue and tb_leases, the first pins in tb_pins, and the outcomes it
        keeps in tb_outcomes; results too large to tell, in tb_results; connections to upstreams
        and stdio processes
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.calls.outcome_store import OutcomeStore
from toolbus_common.concurrency import end
from toolbus_common.config_store.literal_secrets import Reader
from toolbus_common.config_store.operator_targets import Named
from toolbus_common.contracts import (
    ClientMessage,
    ConnectionCreated,
    IdentityKeyQuery,
    IdentityKeyReply,
    ServersQuery,
    ServersReply,
    SessionsQuery,
    SessionsReply,
    UpstreamTokenQuery,
    UpstreamTokenReply,
)
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.object_store import Objects
from toolbus_common.nats.topology import (
    CATALOGUE,
    CONFIG,
    LEASES,
    OUTCOMES,
    PINS,
    RESULTS,
    SESSIONS,
)
from toolbus_common.secrets import Secrets, stores_of
from toolbus_common.service.privacy import know_people
from toolbus_common.service.service import Service
from toolbus_executor.calls.call_handler import Runner
from toolbus_executor.calls.early_cancellations import EarlyCancellations
from toolbus_executor.calls.operator_commands import Steering
from toolbus_executor.calls.session_router import Placing
from toolbus_executor.calls.suspended_call_router import ParkLane
from toolbus_executor.catalog.definition_pins import Pins
from toolbus_executor.dependencies import Means
from toolbus_executor.identity.keys import IdentityKeys
from toolbus_executor.isolation.capability_probe import probe
from toolbus_executor.results.large.store import Vault
from toolbus_executor.results.selection.worker_client import Selector
from toolbus_executor.servers.supervisor import Buckets, Keeper
from toolbus_executor.settings import Settings
from toolbus_executor.transport.dialer_factory import Ways
from toolbus_executor.upstreams.sessions.session_claims import Places

log = logging.getLogger(__name__)

TOKEN_SECONDS = 40.0  # longer than oauth waits for others
MOST_STARTS = max(4, 2 * (os.cpu_count() or 1))  # processes started at once to be listed


class Fleet:
    """A keeper for every declared server: a change touches only the server it is about."""

    def __init__(
        self,
        service: Service,
        directory: ConfigProjection,
        pins: Pins,
        steering: Steering,
        means: Means,
    ) -> None:
        self._service = service
        self._means = means
        self._directory = directory
        self._pins = pins
        pins.on_change = self._weigh
        self._steering = steering
        steering.on_change = self.hear
        self._resets: dict[str, int] = {}  # when each keeper began
        self._keepers: dict[str, Keeper] = {}
        self._changed = asyncio.Event()
        self._early = EarlyCancellations()
        self._lane = ParkLane(service.bus, service.events.producer, self._runner)
        self._selector = Selector()
        self._outcomes: OutcomeStore
        self._places: Places

    def __len__(self) -> int:
        return len(self._keepers)

    async def told(self) -> tuple[dict[str, Any], ...]:
        """A row per server."""
        names = sorted(self._keepers)
        rows = await asyncio.gather(*(self._keepers[name].told() for name in names))
        return tuple(
            row | {"resets": self._resets[name]} for name, row in zip(names, rows, strict=True)
        )

    def sessions(self) -> SessionsReply:
        """Who holds which session here."""
        every = ((name, keeper.separation) for name, keeper in self._keepers.items())
        kept = {name: each.pool.told() for name, each in every if each is not None}
        return SessionsReply(instance=self._service.events.producer, servers=kept)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Follow the declaration until left."""
        buckets = Buckets(*[await self._service.bucket(name) for name in (CATALOGUE, LEASES, PINS)])
        self._outcomes = OutcomeStore(await self._service.bucket(OUTCOMES), self._service.spawn)
        claims = await self._service.bucket(SESSIONS)
        self._places = Places(claims, buckets.leases, self._service.events.producer)
        self._places.on_taken = self._taken
        self._changed.set()
        await self._lane.open(self._cancel)
        await self._service.bus.subscribe(
            subject_of(ConnectionCreated.NAME, "*"), self._account_made
        )
        await self._service.bus.subscribe(f"{ClientMessage.SUBJECT}.*", self._client_said)
        following = asyncio.create_task(self._follow(buckets))
        if any(each.is_process for each in self._directory.now.declaration.servers.values()):
            self._service.spawn(probe(self._means.settings))
        try:
            yield
        finally:
            await end(following)
            await self._lane.close()
            keepers = self._keepers.values()
            await asyncio.gather(*(keeper.stop(removed=False) for keeper in keepers))
            await self._places.close()
            await self._selector.close()

    def hear(self) -> None:
        """Look again at what is declared and how servers are steered."""
        self._changed.set()

    async def _follow(self, buckets: Buckets) -> None:
        await self._forget_strangers(buckets.catalogue)
        while True:
            await self._changed.wait()
            self._changed.clear()
            declared = self._directory.now.declaration.servers
            met = set(self._keepers)
            leaving = [
                self._keepers.pop(name).stop(removed=name not in declared)
                for name, keeper in list(self._keepers.items())
                if declared.get(name) != keeper.declared
                or self._steering.of(name).resets != self._resets[name]
            ]
            await asyncio.gather(*leaving)
            for name, server in declared.items():
                if name not in self._keepers:
                    keeper = Keeper(name, server, self._service, buckets, self._pins, self._means)
                    keeper.fresh = name in met
                    if keeper.separation is not None:
                        keeper.runner.placing = Placing(name, keeper.separation, self._places)
                    keeper.runner.forward = self._lane.forward
                    keeper.runner.early = self._early
                    keeper.runner.selector = self._selector
                    keeper.runner.reports.outcomes = self._outcomes
                    self._keepers[name] = keeper
                    self._resets[name] = self._steering.of(name).resets
                self._keepers[name].runner.drained = self._steering.of(name).drained

    def _taken(self, key: str) -> None:
        keeper = self._keepers.get(key.rpartition(".")[0])
        if keeper is not None and keeper.runner.placing is not None:
            keeper.runner.placing.taken(key)

    def _weigh(self, server: str) -> None:
        keeper = self._keepers.get(server)
        if keeper is not None:
            keeper.entry.weigh_anew()

    def _runner(self, server: str) -> Runner | None:
        keeper = self._keepers.get(server)
        return keeper.runner if keeper is not None else None

    def _cancel(self, call_id: str) -> None:
        under_way = [keeper.runner.cancel(call_id) for keeper in self._keepers.values()]
        if not any(under_way):
            self._early.remember(call_id)

    def _client_said(self, payload: bytes, *_: str) -> None:
        """Take what a client session says outside calls."""
        said = ClientMessage.decode(payload)
        for keeper in self._keepers.values():
            if keeper.separation is not None:
                keeper.separation.hear_client(said)

    def _account_made(self, lines: bytes, *_: str) -> None:
        """A server that waits for the account it is listed with need wait no longer."""
        for line in lines.split(b"\n"):
            keeper = self._keepers.get(ConnectionCreated.decode(line).server)
            if keeper is not None:
                keeper.try_now()

    async def _forget_strangers(self, catalogue: Bucket) -> None:
        """Take out of the catalogue what was removed while no executor ran."""
        declared = self._directory.now.declaration.servers
        try:
            async for entry in catalogue.watch():
                if entry is None:
                    return
                if entry.value is not None and entry.key not in (BUILT_IN, *declared):
                    await catalogue.delete(entry.key)
        except Exception:
            log.exception("catalogue.not_tidied")


async def _token(service: Service, asked: UpstreamTokenQuery) -> UpstreamTokenReply:
    return await service.requests.ask(asked, UpstreamTokenReply, TOKEN_SECONDS)


async def _identity_key(service: Service) -> IdentityKeyReply:
    return await service.requests.ask(IdentityKeyQuery(), IdentityKeyReply)


def build(exchange: LocalTransport) -> Service:
    """Wire the service. Nothing connects until it runs."""
    settings = Settings()
    service = Service("executor", settings, exchange)
    know_people(service)
    directory = ConfigProjection(Reader.at("executor", settings.sealing).opened)
    pins = Pins(service.events)
    steering = Steering()
    keys = IdentityKeys(partial(_identity_key, service))
    ways = Ways(settings.egress, Named(), settings.egress_ca, os.environ, keys)
    service.watch_bucket(CONFIG)(ways.named.hear)
    service.watch_bucket(CONFIG)(directory.hear)
    service.watch_bucket(CONFIG)(steering.hear)
    service.watch_bucket(PINS)(pins.hear)

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        secrets = Secrets(stores_of(os.environ), fresh=settings.secret_seconds)
        vault = Vault(lambda: Objects.opened(service.bus, RESULTS))
        starts = asyncio.Semaphore(MOST_STARTS)
        means = Means(ways, vault, settings, starts, secrets, partial(_token, service))
        fleet = Fleet(service, directory, pins, steering, means)
        directory.on_declared.append(fleet.hear)
        service.details = lambda: {"servers": len(fleet)}

        await service.requests.answer_all(SessionsQuery, fleet.sessions)

        @service.answer_query(ServersQuery)
        async def servers(_asked: ServersQuery) -> ServersReply:
            return ServersReply(servers=await fleet.told())

        async with fleet.kept():
            yield

    service.add_resource(opened)
    return service
