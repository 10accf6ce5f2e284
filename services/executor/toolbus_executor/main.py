"""The executor service: calls upstream servers and publishes their catalogue.

subscribes  CallAdmitted, per server or provider and from other executors; CallCancelled; the
            buckets tb_config, tb_pins and tb_catalogue; ConnectionCreated; ClientMessage
publishes   the reply messages of each call; CallCompleted, CallFailed, CallExtended, ModelUsed;
            ServerConnected, ServerLost, ServerFaulted, BreakerOpened, BreakerClosed;
            DefinitionPinned, DefinitionChanged, DefinitionFlagged; ModelCachePurged;
            GuardFailed, MessageGuarded; ServerNotification
queries     oauth (UpstreamTokenQuery, IdentityKeyQuery)
owns        the buckets tb_catalogue and tb_leases, the first pins in tb_pins, the outcomes it
            stores in tb_outcomes, large results in tb_results, cached responses of models in
            tb_model_cache and tb_model_responses; connections to upstreams and stdio processes
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any

from toolbus_common.access.config_snapshot import ConfigProjection, ConfigView
from toolbus_common.calls.outcome_store import OutcomeStore
from toolbus_common.concurrency import in_background
from toolbus_common.config import Configuration, Server
from toolbus_common.config_store.literal_secrets import Reader, keys_at
from toolbus_common.config_store.operator_targets import ConfirmedTargets
from toolbus_common.contracts import (
    CachedResponsesQuery,
    CallAdmitted,
    ClientMessage,
    ConnectionCreated,
    GuardQuery,
    IdentityKeyQuery,
    IdentityKeyReply,
    PurgeCacheRequest,
    ServersQuery,
    ServersReply,
    SessionsQuery,
    SessionsReply,
    UpstreamTokenQuery,
    UpstreamTokenReply,
)
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.guards.inspector import Inspector
from toolbus_common.guards.service_inspector import placeholders_of
from toolbus_common.mcp.builtin_server import BUILT_IN
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
from toolbus_common.plugins.checks import PluginChecks
from toolbus_common.plugins.requests import PluginRequests, ejected
from toolbus_common.privacy.service_keys import use_person_keys
from toolbus_common.secrets import Secrets, stores_of
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.reconciler import Reconciler
from toolbus_common.service.service import Service
from toolbus_executor.calls.call_handler import CallHandler
from toolbus_executor.calls.early_cancellations import EarlyCancellations
from toolbus_executor.calls.operator_commands import OperatorCommands
from toolbus_executor.calls.session_router import SessionRouter
from toolbus_executor.calls.suspended_call_router import SuspendedCallRouter
from toolbus_executor.catalog.definition_guards import DefinitionGuards, checks_of
from toolbus_executor.catalog.definition_pins import Pins
from toolbus_executor.dependencies import Dependencies
from toolbus_executor.guard_services.checks.registry import GuardServices
from toolbus_executor.guard_services.checks.tool_calls import ToolCalls
from toolbus_executor.guards.call_guards import CallGuards
from toolbus_executor.guards.held_secrets import HeldSecrets
from toolbus_executor.identity.keys import IdentityKeys
from toolbus_executor.isolation.capability_probe import probe
from toolbus_executor.plugins.python_processes import PythonPlugins
from toolbus_executor.plugins.webhooks import Webhooks
from toolbus_executor.providers.cache.service import ModelCache
from toolbus_executor.providers.registry import ProviderRegistry
from toolbus_executor.results.large.store import LargeResultStore
from toolbus_executor.results.selection.worker_client import Selector
from toolbus_executor.servers.buckets import Buckets
from toolbus_executor.servers.supervisor import ServerSupervisor
from toolbus_executor.settings import Settings
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.sessions.session_claims import SessionClaims
from toolbus_executor.validation import reads_output_schemas

log = logging.getLogger(__name__)

TOKEN_SECONDS = 40.0  # longer than oauth waits for an authorization server
READY_SECONDS = 20.0  # after them, a replica is ready although a server has not answered yet
MAX_NAMED = 5  # servers in a reason
MAX_STARTS = max(4, 2 * (os.cpu_count() or 1))  # first starts of processes at the same time


class ServerRegistry:
    """The supervisors of all configured servers. A changed server restarts only its supervisor.

    It also reconciles the providers of models.
    """

    def __init__(
        self,
        service: Service,
        directory: ConfigView,
        pins: Pins,
        commands: OperatorCommands,
        dependencies: Dependencies,
        cache: ModelCache,
    ) -> None:
        self._service = service
        self._dependencies = dependencies
        self._directory = directory
        self._pins = pins
        pins.on_change = pins.others.on_change = self._apply_pins
        self._commands = commands
        commands.on_change = self.reconcile
        self._supervisors = Reconciler(self._start, ServerSupervisor.stop)
        self._restarted: frozenset[str] = frozenset()  # servers known before this change
        self._changed = asyncio.Event()
        self._patience = monotonic() + READY_SECONDS
        self._checks = checks_of(Configuration())  # with which the servers were listed
        self._inspector: Callable[[], Inspector] = lambda: dependencies.guards.inspector
        self._early_cancellations = early = EarlyCancellations()
        self._providers = ProviderRegistry(service, commands, dependencies, early, cache)
        self._suspended_calls = SuspendedCallRouter(
            service.bus, service.events.producer, self._handler
        )
        self.guard_services = GuardServices(
            service.events,
            dependencies.secrets,
            dependencies.dialers,
            ToolCalls(self._handler).call,
            lambda: directory.now.configuration.guards,
        )
        dependencies.guards.ask_service = self.guard_services.check
        self._webhooks = Webhooks(
            service.bus,
            dependencies.secrets,
            dependencies.dialers,
            lambda: directory.now.configuration.plugins,
        )
        self.python_plugins = PythonPlugins(
            dependencies.settings, lambda: directory.now.configuration.plugins
        )
        self._selector = Selector()
        self._buckets: Buckets
        self._outcomes: OutcomeStore
        self._claims: SessionClaims

    def __len__(self) -> int:
        return len(self._supervisors)

    async def status(self) -> tuple[dict[str, Any], ...]:
        """Return a status row per server, provider and guard with a service, sorted by name."""
        supervisors = sorted(self._supervisors, key=lambda each: each.name)
        servers = await asyncio.gather(*(each.status() for each in supervisors))
        return *servers, *self._providers.status(), *self.guard_services.status()

    def why_not(self) -> str:
        """Return which servers' calls this replica does not serve yet; empty if all, or if late.

        Until then, the replica that it replaces must stay.
        """
        if monotonic() < self._patience:
            declared = self._directory.now.configuration.servers
            if waiting := [name for name in declared if not self._is_served(name)]:
                return f"connecting to {', '.join(sorted(waiting)[:MAX_NAMED])}"
            self._patience = 0.0
        return ""

    def _is_served(self, server: str) -> bool:
        supervisor = self._supervisors.get(server)
        return supervisor is not None and (
            supervisor.alone or self._service.calls.serves(CallAdmitted, server)
        )

    def sessions(self) -> SessionsReply:
        """Return the upstream sessions of this executor, with their owners."""
        pools = ((name, supervisor.separation) for name, supervisor in self._supervisors.items())
        sessions = {name: each.pool.status() for name, each in pools if each is not None}
        return SessionsReply(instance=self._service.events.producer, servers=sessions)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the configuration until the context ends."""
        names = (CATALOGUE, LEASES, PINS)
        self._buckets = Buckets(*[await self._service.bucket(name) for name in names])
        self._outcomes = OutcomeStore(await self._service.bucket(OUTCOMES), self._service.spawn)
        claims = await self._service.bucket(SESSIONS)
        self._claims = SessionClaims(claims, self._buckets.leases, self._service.events.producer)
        self._claims.on_taken = self._session_taken
        self._changed.set()
        await self._suspended_calls.open(self._cancel)
        await self._service.bus.subscribe(
            subject_of(ConnectionCreated.NAME, "*"), self._connection_created
        )
        await self._service.bus.subscribe(f"{ClientMessage.SUBJECT}.*", self._client_message)
        if any(each.is_process for each in self._directory.now.configuration.servers.values()):
            self._service.spawn(probe(self._dependencies.settings))
        try:
            async with in_background(self._follow()):
                yield
        finally:
            await self._suspended_calls.close()
            await self._supervisors.close()
            await self._providers.close()
            await self.guard_services.close()
            await self._webhooks.close()
            await self.python_plugins.close()
            await self._claims.close()
            await self._selector.close()

    def reconcile(self) -> None:
        """Schedule a comparison of the supervisors with the configuration and operator commands."""
        self._changed.set()

    async def _follow(self) -> None:
        await self._remove_stale_entries(self._buckets.catalogue)
        while True:
            await self._changed.wait()
            self._changed.clear()
            declared = self._directory.now.configuration.servers
            self._restarted = frozenset(each.name for each in self._supervisors)
            await self._supervisors.reconcile(
                {name: (each, self._commands.of(name).resets) for name, each in declared.items()}
            )
            checks = checks_of(self._directory.now.configuration)
            for supervisor in self._supervisors:
                if checks != self._checks:
                    supervisor.lists_changed.set()  # check the definitions again
                await supervisor.handler.checks.read_output_schemas(checks[0].values())
                supervisor.handler.drained = self._commands.of(supervisor.name).drained
            self._checks = checks
            await self._providers.reconcile(self._directory.now.configuration.providers)
            await self.guard_services.reconcile()
            await self._webhooks.reconcile()
            await self.python_plugins.reconcile()

    def _start(self, name: str, entry: tuple[Server, int]) -> ServerSupervisor:
        """Start the supervisor of a server.

        It is restarted if the reset count in `entry` changes.
        """
        declared, resets = entry
        supervisor = ServerSupervisor(
            name, declared, self._service, self._buckets, self._pins, self._dependencies
        )
        supervisor.entry.guards = DefinitionGuards(
            name, declared, self._inspector, self._dependencies.guards.plugins,
            supervisor.lists_changed.set,
        )  # fmt: skip
        supervisor.handler.checks.output_schemas = reads_output_schemas(
            self._directory.now.configuration.guards.values()
        )
        supervisor.resets = resets
        supervisor.fresh = name in self._restarted
        if supervisor.separation is not None:
            supervisor.handler.session_router = SessionRouter(
                name, supervisor.separation, self._claims
            )
        supervisor.handler.forward = self._suspended_calls.forward
        supervisor.handler.early_cancellations = self._early_cancellations
        supervisor.handler.selector = self._selector
        supervisor.handler.outcomes.idempotency_store = self._outcomes
        return supervisor

    def _session_taken(self, key: str) -> None:
        supervisor = self._supervisors.get(key.rpartition(".")[0])
        if supervisor is not None and supervisor.handler.session_router is not None:
            supervisor.handler.session_router.drop_taken(key)

    def _apply_pins(self, server: str) -> None:
        supervisor = self._supervisors.get(server)
        if supervisor is not None:
            supervisor.entry.reapply_pins()

    def _handler(self, server: str) -> CallHandler | None:
        supervisor = self._supervisors.get(server)
        return supervisor.handler if supervisor is not None else None

    def _cancel(self, call_id: str) -> None:
        found = [supervisor.handler.cancel(call_id) for supervisor in self._supervisors]
        if not any(found) and not self._providers.cancel(call_id):
            self._early_cancellations.remember(call_id)

    def _client_message(self, payload: bytes, *_: str) -> None:
        """Pass a client's message that belongs to no call to the client's upstream sessions."""
        message = ClientMessage.decode(payload)
        for supervisor in self._supervisors:
            if supervisor.separation is not None:
                supervisor.separation.hear_client(message)

    def _connection_created(self, lines: bytes, *_: str) -> None:
        """Reconnect to a server now, because a user has connected an account to it."""
        for line in lines.split(b"\n"):
            supervisor = self._supervisors.get(ConnectionCreated.decode(line).server)
            if supervisor is not None:
                supervisor.retry_now()

    async def _remove_stale_entries(self, catalogue: Bucket) -> None:
        """Remove the entries of servers that were removed while no executor was running."""
        configuration = self._directory.now.configuration
        declared = configuration.servers.keys() | configuration.providers.keys()
        try:
            async for entry in catalogue.watch():
                if entry is None:
                    return
                if entry.value is not None and entry.key not in (BUILT_IN, *declared):
                    await catalogue.delete(entry.key)
        except Exception:
            log.exception("catalogue.cleanup_failed")


async def _token(
    service: Service, held: HeldSecrets, query: UpstreamTokenQuery
) -> UpstreamTokenReply:
    """Return a user's token, which no call may contain from now on."""
    reply = await service.requests.request(query, UpstreamTokenReply, TOKEN_SECONDS)
    if reply.token:
        held.renew(f"user {query.server} {query.user}", (reply.token, reply.key))
    return reply


async def _identity_key(service: Service) -> IdentityKeyReply:
    return await service.requests.request(IdentityKeyQuery(), IdentityKeyReply)


def build(process: ProcessContext) -> Service:
    """Create the service and its parts. They connect only when the service runs."""
    settings = Settings()
    service = Service("executor", settings, process)
    cache = ModelCache(service, use_person_keys(service))
    service.shared_keys.add("encryption", *keys_at("executor", settings.encryption))
    decrypted = Reader.at("executor", settings.encryption).opened
    directory = ConfigView(service.share_projection(CONFIG, ConfigProjection), decrypted)
    pins = Pins(service.events)
    commands = OperatorCommands()
    keys = IdentityKeys(partial(_identity_key, service))
    confirmed = service.share_projection(CONFIG, ConfirmedTargets)
    dialers = DialerFactory(settings.egress, confirmed, settings.egress_ca, os.environ, keys)
    service.watch_bucket(CONFIG)(commands.apply_change)
    service.watch_bucket(PINS)(pins.apply_change)
    service.watch_bucket(CATALOGUE)(pins.others.apply_change)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        secrets = Secrets(stores_of(os.environ), fresh=settings.secret_seconds)
        large_results = LargeResultStore(lambda: Objects.opened(service.bus, RESULTS))
        starts = asyncio.Semaphore(MAX_STARTS)
        plugins = PluginRequests(service.bus, lambda: directory.now.configuration.plugins)
        guards = CallGuards(
            lambda: directory.now.configuration.guards,
            placeholders_of(service),
            service.events,
            plugins=PluginChecks(plugins),
        )
        held = HeldSecrets()
        token = partial(_token, service, held)
        dependencies = Dependencies(
            dialers, large_results, settings, starts, secrets, token, guards, held
        )
        registry = ServerRegistry(service, directory, pins, commands, dependencies, cache)
        directory.projection.on_configured.append(registry.reconcile)
        if process.alone:
            service.why_not = registry.why_not
        service.details = lambda: (
            {"servers": len(registry)} | registry.python_plugins.status() | ejected(plugins)
        )

        @service.broker.subscriber(SessionsQuery.SUBJECT)  # no queue: every replica replies
        async def sessions(_query: SessionsQuery) -> SessionsReply:
            return registry.sessions()

        @service.broker.subscriber(ServersQuery.SUBJECT, queue=service.name)
        async def servers(_query: ServersQuery) -> ServersReply:
            return ServersReply(servers=await registry.status())

        service.broker.subscriber(
            GuardQuery.SUBJECT, queue=service.name, max_workers=GuardQuery.AT_ONCE
        )(registry.guard_services.answer)
        service.broker.subscriber(CachedResponsesQuery.SUBJECT, queue=service.name)(cache.show)
        service.broker.subscriber(PurgeCacheRequest.SUBJECT, queue=service.name)(cache.purge)
        async with registry.running():
            yield

    service.add_resource(running)
    return service
