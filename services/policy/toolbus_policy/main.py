"""The policy service: authorizes calls and reserves their price.

subscribes  CallRequested, CallCancelled; the outcomes CallCompleted and CallFailed; CallExtended;
            LedgerQuery, RebuildRequest; ApprovalsQuery, ApproveRequest, RejectRequest,
            ApproverRequest; AdminRequest; FlowRunsQuery, ResetFlowRequest
publishes   CallAdmitted (to executor), CallCancelled; the events CallAllowed, CallDenied,
            CallFailed, CallReplayed, LedgerOpened, GuardFailed, FlowReset, every ApprovalEvent, and
            the events of configuration changes over HTTP
queries     audit for spending when counters are lost, and for calls without an outcome;
            executor for the guards that ask another service; for administrators: every
            service for its status, executor for servers, codemode for runs, audit for events
owns        the ledger in Redis, its generations in the bucket tb_ledger; the buckets tb_approvals
            and tb_tasks; what runs have read in tb_flow; the claims in tb_outcomes,
            which the service that ends a call overwrites
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time
from typing import cast

from toolbus_common.access.administrators import Administrator
from toolbus_common.access.config_snapshot import (
    ConfigProjection,
    ConfigSnapshot,
    ConfigView,
    hash_of,
)
from toolbus_common.access.principal import Principal
from toolbus_common.access.session_owner import holder_of
from toolbus_common.calls.bucket_sizes import follow_sizes
from toolbus_common.concurrency import in_background
from toolbus_common.config_store.literal_secrets import Writer
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import (
    AdminRequest,
    ApprovalsQuery,
    ApprovalsReply,
    ApproveRequest,
    ApproverRequest,
    CallCancelled,
    CallRequested,
    ExplainQuery,
    FlowRunsQuery,
    LedgerQuery,
    Listing,
    OwnExplainQuery,
    RebuildRequest,
    RejectRequest,
    ResetFlowRequest,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.guards.service_inspector import InspectorProvider
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import (
    APPROVALS,
    CATALOGUE,
    CONFIG,
    FLOW,
    LEDGER,
    OUTCOMES,
    TASKS,
    TOKENS,
)
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.service_keys import use_person_keys
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_policy.admin.configuration import ConfigurationOperations
from toolbus_policy.admin.definitions import DefinitionOperations
from toolbus_policy.admin.installation import InstallationOperations
from toolbus_policy.admin.ledger_queries import LedgerQueryHandler
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions
from toolbus_policy.admin.service import AdminService
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.admission.handler import AdmissionHandler
from toolbus_policy.admission.plan_cache import PrincipalCache
from toolbus_policy.admission.rule_evaluator import RuleCompiler
from toolbus_policy.approvals.approvers import ApproverService, operator
from toolbus_policy.approvals.fingerprint import binding_of, definition_digest, policy_digest
from toolbus_policy.approvals.repository import ApprovalRepository
from toolbus_policy.approvals.service import ApprovalLimits, ApprovalService
from toolbus_policy.approvals.tasks.repository import TaskRepository
from toolbus_policy.approvals.tasks.service import TaskService
from toolbus_policy.explanation.explainer import Explainer
from toolbus_policy.flow.follower import FlowFollower
from toolbus_policy.flow.queries import RunQueryHandler
from toolbus_policy.flow.repository import RunRepository
from toolbus_policy.idempotency.claims import IdempotencyClaims
from toolbus_policy.idempotency.quota import OutcomeQuota
from toolbus_policy.ledger.generations import BusGenerationStore, LedgerWatcher
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.recovery.rebuild import Rebuilder
from toolbus_policy.ledger.recovery.unresolved_calls import UnresolvedCallSweeper
from toolbus_policy.ledger.settlement import SettlementConsumer
from toolbus_policy.settings import Settings

log = logging.getLogger(__name__)

PING_SECONDS = 2.0
EXPIRE_SECONDS = 1.0
MARK_SECONDS = 1.0


class AuthorizerProvider:
    """The current authorizer, created again after each change of the configuration or catalogue."""

    MAX_ENTRIES = 50_000

    def __init__(self, config: ConfigView) -> None:
        self._config = config
        self._catalogue: dict[str, Listing] = {}
        self._rule_compiler = RuleCompiler()
        self._policy_digests = PrincipalCache[tuple[str, str], str](self.MAX_ENTRIES)
        self._authorizer: Authorizer | None = None

    def apply_catalogue(self, change: Change | None) -> None:
        """Store or remove the listing of one server."""
        if change is not None and change.value is not None:
            self._catalogue[change.key] = Listing.decode(change.value)
        elif change is not None:
            self._catalogue.pop(change.key, None)
        self._authorizer = None

    @property
    def snapshot(self) -> ConfigSnapshot:
        """The current configuration."""
        return self._config.now

    async def administrator(self, key_digest: str) -> Administrator | None:
        """Return the administrator with this key digest, else None.

        An unknown digest may belong to an access token issued moments ago, which is then looked up.
        """
        found = self._config.administrator(key_digest, time())
        if found is None and await self._config.bearers.learn(hash_of(key_digest)) is not None:
            found = self._config.administrator(key_digest, time())
        return found

    @property
    def authorizer(self) -> Authorizer:
        """The authorizer of the current configuration and catalogue."""
        authorizer, snapshot = self._authorizer, self._config.now
        if authorizer is None or authorizer.snapshot is not snapshot:
            unchanged = (
                authorizer is not None
                and authorizer.snapshot.configuration is snapshot.configuration
            )
            cache = authorizer.cache if authorizer is not None and unchanged else None
            rules = self._rule_compiler.of(snapshot)
            authorizer = self._authorizer = Authorizer(snapshot, self._catalogue, rules, cache)
        return authorizer

    def bind(self, call: CallRequested, principal: Principal) -> str:
        """Return the binding of an approval for this call. The policy's digest is cached."""
        entry = (principal.key, call.server)
        try:
            policy = self._policy_digests.get(entry, principal)
        except KeyError:
            digest = policy_digest(principal, self._config.now.configuration, call.server)
            policy = self._policy_digests.put(entry, principal, digest)
        definition = definition_digest(self._catalogue.get(call.server), call.tool)
        return binding_of(call, holder_of(call.key_digest, principal), definition, policy)


def build(process: ProcessContext) -> Service:
    """Compose the service. Nothing connects until it runs."""
    settings = Settings()
    service = Service("policy", settings, process)
    service.shared_keys.add("policy", *settings.records(APPROVALS).keys)
    service.shared_keys.add("encryption", *Writer.at(settings.encryption).accepted)
    provider, watcher = _watch_buckets(service)
    approvals, approvers = _build_approvals(service, provider, settings)
    tasks = approvals.task_service
    guards = InspectorProvider(service, lambda: provider.snapshot.configuration)
    service.details = guards.plugin_details

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        generations = BusGenerationStore(await service.bucket(LEDGER), service.events)
        ledger = Ledger(settings.redis_url.get_secret_value(), generations, settings.redis_timeout)
        provider.snapshot.bearers.open(await service.bucket(TOKENS))
        approvals.approval_repository.open(await service.bucket(APPROVALS))
        tasks.task_repository.open(await service.bucket(TASKS))
        rebuilder, queries = _build_ledger_admin(service, ledger, provider, watcher, settings)
        flow, flow_runs = await _build_flow(service, settings)
        explainer = Explainer(
            lambda: provider.authorizer, lambda: guards.trial, ledger, flow, service.requests,
            settings.outcome_grace,
        )  # fmt: skip
        _serve_explanations(service, explainer)
        await _serve_admin(
            service, provider, approvers, queries, flow_runs, explainer, settings, guards
        )
        claims = await _build_claims(service, settings)
        handler = AdmissionHandler(
            service,
            lambda: provider.authorizer,
            ledger,
            approvals,
            claims,
            settings.outcome_grace,
            lambda: guards.inspector,
            flow,
        )
        tasks.run_approved = handler.handle_deferred
        service.serve_calls(CallRequested)(handler.handle)
        await service.bus.subscribe(
            f"{CallCancelled.SUBJECT}.*",
            lambda data, *_: approvals.cancel(CallCancelled.decode(data).call_id),
        )
        settlement = SettlementConsumer(
            service, ledger, lambda: watcher.customers, settings.outcome_grace
        )
        await settlement.note_newest()
        service.broker.events("policy", seconds=0.5, pause=0.1)(settlement.handle_batch)
        work = (
            settlement.sweep(), rebuilder.run(), _ping(service, ledger), _mark(ledger),
            follow_sizes(service.bus, OUTCOMES, claims.quota.sizes.apply_change),
            _expire(approvals), tasks.run(),
            UnresolvedCallSweeper(service, ledger, settings.outcome_grace).run(),
        )  # fmt: skip
        try:
            async with in_background(*work):
                yield
        finally:
            await ledger.close()

    service.add_resource(opened)
    return service


async def _build_claims(service: Service, settings: Settings) -> IdempotencyClaims:
    """Compose the claims of calls with an idempotency key."""
    quota = OutcomeQuota(settings.max_outcomes, settings.max_outcome_bytes)
    claims = IdempotencyClaims(quota, settings.records(OUTCOMES), settings.outcome_grace)
    claims.open(await service.bucket(OUTCOMES), service.spawn)
    return claims


async def _build_flow(service: Service, settings: Settings) -> tuple[FlowFollower, RunQueryHandler]:
    """Compose the follower of information flow, and serve the queries about runs."""
    runs = RunRepository()
    runs.open(await service.bucket(FLOW))
    queries = RunQueryHandler(runs, service.events)
    service.broker.subscriber(FlowRunsQuery.SUBJECT, queue=service.name)(queries.show)
    service.broker.subscriber(ResetFlowRequest.SUBJECT, queue=service.name)(queries.reset)
    return FlowFollower(runs, settings.records(FLOW)), queries


def _watch_buckets(service: Service) -> tuple[AuthorizerProvider, LedgerWatcher]:
    use_person_keys(service)
    config = ConfigView(service.share_projection(CONFIG, ConfigProjection))
    provider, watcher = AuthorizerProvider(config), LedgerWatcher()
    service.watch_bucket(LEDGER)(watcher.apply_change)
    service.watch_bucket(CATALOGUE)(provider.apply_catalogue)
    service.watch_bucket(TOKENS)(provider.snapshot.bearers.apply_change)
    return provider, watcher


def _build_approvals(
    service: Service, provider: AuthorizerProvider, settings: Settings
) -> tuple[ApprovalService, ApproverService]:
    """Compose approvals, deferred calls, and the queries of approvers."""
    repository = ApprovalRepository(settings.records(APPROVALS))
    tasks = TaskRepository(settings.records(TASKS))
    service.watch_bucket(APPROVALS)(repository.apply_change)
    service.watch_bucket(TASKS)(tasks.apply_change)
    task_service = TaskService(
        tasks, repository, service.events, service.calls, settings.outcome_grace
    )
    limits = ApprovalLimits(
        settings.approval_seconds,
        settings.approved_seconds,
        settings.max_pending_approvals,
        settings.public_url,
    )
    approvals = ApprovalService(repository, service.events, provider.bind, limits, task_service)
    approvers = ApproverService(
        repository, service.events, lambda: provider.snapshot, settings.approved_seconds
    )
    _serve_approvals(service, approvers)
    return approvals, approvers


def _serve_approvals(service: Service, approvers: ApproverService) -> None:
    """Register the handlers of operators, and of keys with the right to approve."""

    @service.broker.subscriber(ApprovalsQuery.SUBJECT, queue=service.name)
    async def show(query: ApprovalsQuery) -> ApprovalsReply:
        return await approvers.show(operator(""), query.id)

    @service.broker.subscriber(ApproveRequest.SUBJECT, queue=service.name)
    async def approve(request: ApproveRequest) -> ApprovalsReply:
        approver = operator(request.by)
        return await approvers.decide(approver, request.id, request.note, approve=True)

    @service.broker.subscriber(RejectRequest.SUBJECT, queue=service.name)
    async def reject(request: RejectRequest) -> ApprovalsReply:
        approver = operator(request.by)
        return await approvers.decide(approver, request.id, request.note, approve=False)

    @service.broker.subscriber(ApproverRequest.SUBJECT, queue=service.name)
    async def handle_key(request: ApproverRequest) -> ApprovalsReply:
        return await approvers.handle(request)


def _build_ledger_admin(
    service: Service,
    ledger: Ledger,
    provider: AuthorizerProvider,
    watcher: LedgerWatcher,
    settings: Settings,
) -> tuple[Rebuilder, LedgerQueryHandler]:
    """Compose the rebuilder of lost counters and the handler of ledger queries."""
    rebuilder = Rebuilder(
        service, ledger, lambda: provider.snapshot, settings.ledger_quiet, settings.outcome_grace
    )
    watcher.on_mark, ledger.on_lost = ledger.observe_mark, rebuilder.enqueue
    queries = LedgerQueryHandler(
        ledger, rebuilder, lambda: provider.snapshot, lambda: watcher.customers
    )
    service.broker.subscriber(LedgerQuery.SUBJECT, queue=service.name)(queries.handle_query)
    service.broker.subscriber(RebuildRequest.SUBJECT, queue=service.name)(queries.handle_rebuild)
    return rebuilder, queries


def _serve_explanations(service: Service, explainer: Explainer) -> None:
    """Register the handlers of queries for explanations."""
    service.broker.subscriber(
        ExplainQuery.SUBJECT, queue=service.name, max_workers=ExplainQuery.AT_ONCE
    )(explainer.explain)
    service.broker.subscriber(
        OwnExplainQuery.SUBJECT, queue=service.name, max_workers=OwnExplainQuery.AT_ONCE
    )(explainer.explain_own)


async def _serve_admin(  # noqa: PLR0913, PLR0917 - composes every part
    service: Service,
    provider: AuthorizerProvider,
    approvers: ApproverService,
    ledger: LedgerQueryHandler,
    flow_runs: RunQueryHandler,
    explainer: Explainer,
    settings: Settings,
    guards: InspectorProvider,
) -> None:
    """Register the handler of administration requests."""
    bus, config, events = service.bus, await service.bucket(CONFIG), service.events
    commands, variables = settings.admin_commands.split(), settings.admin_variables.split()
    restrictions = RemoteRestrictions(tuple(commands), tuple(variables), settings.egress)
    literals = Writer.at(settings.encryption)
    people = cast("PersonKeys", service.events.people)  # see `_watch_buckets`

    def repository_for(actor: str) -> ConfigRepository:
        return ConfigRepository(bus, config, events, actor, literals, guards.plugins)

    installation = InstallationOperations(
        service.requests, service.bus, repository_for, people, explainer.explain
    )
    whole = ConfigurationOperations(repository_for, restrictions)
    admin = AdminService(
        provider.administrator, repository_for, approvers, ledger.handle_query, restrictions,
        service.requests.request, flow_runs,
        (installation, DefinitionOperations(repository_for), whole),
    )  # fmt: skip

    service.broker.subscriber(
        AdminRequest.SUBJECT, queue=service.name, max_workers=AdminRequest.AT_ONCE
    )(admin.handle)


async def _expire(approvals: ApprovalService) -> None:
    """Expire approvals forever."""
    while True:
        await asyncio.sleep(EXPIRE_SECONDS)
        try:
            await approvals.expire()
        except ToolbusError as error:
            log.warning("approvals.not_expired", extra={"reason": error.reason})


async def _ping(service: Service, ledger: Ledger) -> None:
    """Ping Redis forever, and report a failure as the service's health."""
    while True:
        reason = await ledger.store.problem()
        service.why_not = lambda reason=reason: reason  # type: ignore[misc]
        await asyncio.sleep(PING_SECONDS)


async def _mark(ledger: Ledger) -> None:
    """Store a lower bound of each customer's tick on the bus periodically, until cancelled."""
    while True:
        await asyncio.sleep(MARK_SECONDS)
        try:
            await ledger.mark()
        except Exception as error:  # noqa: BLE001 - the next mark stores these ticks too
            log.warning("ledger.not_marked", extra={"reason": str(error)})
