"""The policy service: may this key make this call, and who pays?

hears   CallRequested, CallCancelled; the outcomes CallCompleted and CallFailed; CallExtended
says    CallAdmitted (to executor), CallCancelled; the events CallAllowed, CallDenied, CallFailed,
        CallReplayed, LedgerOpened, those of approvals, and of what is declared over HTTP
asks    audit what was spent, when counters were lost, and which calls never ended
answers LedgerQuery, RebuildRequest; ApprovalsQuery, ApproveRequest, RejectRequest, ApproverRequest;
        AdminRequest
owns    the ledger in Redis, its epochs in the bucket tb_ledger; the buckets tb_approvals and
        tb_tasks; the claims in tb_outcomes, which whoever ends their calls writes over
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from time import time
from typing import Any

from toolbus_common.access.administrators import Administrator
from toolbus_common.access.config_snapshot import ConfigProjection, ConfigSnapshot, hash_of
from toolbus_common.access.principal import Principal
from toolbus_common.access.session_owner import holder_of
from toolbus_common.concurrency import end
from toolbus_common.config_store.literal_secrets import Writer
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import (
    AdminReply,
    AdminRequest,
    ApprovalsQuery,
    ApprovalsReply,
    ApproveRequest,
    ApproverRequest,
    CallCancelled,
    CallRequested,
    LedgerQuery,
    Listing,
    RebuildRequest,
    RejectRequest,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.bucket_sizes import follow_sizes
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import (
    APPROVALS,
    CATALOGUE,
    CONFIG,
    LEDGER,
    OUTCOMES,
    TASKS,
    TOKENS,
)
from toolbus_common.service.privacy import know_people
from toolbus_common.service.service import Service
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
from toolbus_policy.approvals.service import ApprovalService, ApprovalLimits
from toolbus_policy.approvals.tasks.repository import TaskRepository
from toolbus_policy.approvals.tasks.service import TaskService
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
    """Seats the judge: a new one where configuration or catalogue changed since the last call."""

    MOST_REMEMBERED = 50_000

    def __init__(self) -> None:
        self._directory = ConfigProjection()
        self._catalogue: dict[str, Listing] = {}
        self._rule_compiler = RuleCompiler()
        self._policies = PrincipalCache[tuple[str, str], str](self.MOST_REMEMBERED)
        self._authorizer: Authorizer | None = None

    def apply_config(self, change: Change | None) -> None:
        """Take one change of the configuration."""
        self._directory.apply_change(change)

    def apply_catalogue(self, change: Change | None) -> None:
        """Take one change of the catalogue."""
        if change is not None and change.value is not None:
            self._catalogue[change.key] = Listing.decode(change.value)
        elif change is not None:
            self._catalogue.pop(change.key, None)
        self._authorizer = None

    @property
    def snapshot(self) -> ConfigSnapshot:
        """The configuration now."""
        return self._directory.now

    async def administrator(self, key_digest: str) -> Administrator | None:
        """Who administers with this proof; an access token may have been found good just now."""
        found = self._directory.administrator(key_digest, time())
        if found is None and await self._directory.bearers.learn(hash_of(key_digest)) is not None:
            found = self._directory.administrator(key_digest, time())
        return found

    @property
    def authorizer(self) -> Authorizer:
        """Who decides now."""
        authorizer, snapshot = self._authorizer, self._directory.now
        if authorizer is None or authorizer.snapshot is not snapshot:
            authorizer = self._authorizer = self._seated(snapshot, authorizer)
        return authorizer

    def bind(self, call: CallRequested, principal: Principal) -> str:
        """What an approval of this call holds for; the policy's part is worked out once."""
        about = (principal.key, call.server)
        try:
            policy = self._policies.recall(about, principal)
        except KeyError:
            digest = policy_digest(principal, self._directory.now.declaration, call.server)
            policy = self._policies.keep(about, principal, digest)
        definition = definition_digest(self._catalogue.get(call.server), call.tool)
        return binding_of(call, holder_of(call.key_digest, principal), definition, policy)

    def _watch_configuration(
        self, snapshot: ConfigSnapshot, before: Authorizer | None
    ) -> Authorizer:
        same = before is not None and before.snapshot.declaration is snapshot.declaration
        standing = before.standing if before is not None and same else None
        return Authorizer(snapshot, self._catalogue, self._rule_compiler.of(snapshot), standing)


def build(exchange: LocalTransport) -> Service:
    """Wire the service. Nothing connects until it runs."""
    settings = Settings()
    service = Service("policy", settings, exchange)
    bench, marks = _watch_configuration(service), LedgerWatcher()
    service.watch_bucket(LEDGER)(marks.apply_change)
    approval_service, approvers = _build_approvals(service, bench, settings)
    approval_repository, task_service = (
        approval_service.approval_repository,
        approval_service.task_service,
    )

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        generations = BusGenerationStore(await service.bucket(LEDGER), service.events)
        ledger = Ledger(settings.redis_url.get_secret_value(), generations, settings.redis_timeout)
        await _open_buckets(service, bench, approval_repository)
        task_service.task_repository.open(await service.bucket(TASKS))
        rebuilder, ledger_handler = _build_ledger_admin(service, ledger, bench, marks, settings)
        await _serve_admin(service, bench, approvers, ledger_handler, settings)
        once = await _build_claims(service, settings)
        handler = AdmissionHandler(
            service, lambda: bench.authorizer, ledger, approval_service, once, settings.reap_grace
        )
        task_service.run_approved = handler.handle_deferred
        service.serve_calls(CallRequested)(handler.handle)
        await service.bus.subscribe(
            f"{CallCancelled.SUBJECT}.*",
            lambda data, *_: approval_service.cancel(CallCancelled.decode(data).call_id),
        )
        settlement = SettlementConsumer(
            service, ledger, lambda: marks.customers, settings.reap_grace
        )
        await settlement.follow()
        service.consume_events(seconds=0.5, pause=0.1)(settlement.apply_change)
        work = (
            settlement.sweep(), rebuilder.work(), _ping(service, ledger), _mark(ledger),
            _expire(approval_service), follow_sizes(service.bus, OUTCOMES, once.quota.apply_change),
            task_service.work(), UnresolvedCallSweeper(service, ledger, settings.reap_grace).work(),
        )  # fmt: skip
        try:
            async with _run_in_background(*work):
                yield
        finally:
            await ledger.close()

    service.add_resource(opened)
    return service


async def _open_buckets(
    service: Service, bench: AuthorizerProvider, approval_repository: ApprovalRepository
) -> None:
    bench.snapshot.bearers.open(await service.bucket(TOKENS))
    approval_repository.open(await service.bucket(APPROVALS))


@asynccontextmanager
async def _run_in_background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work without end, until this is left."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        await end(*tasks)


def _watch_configuration(service: Service) -> AuthorizerProvider:
    know_people(service)
    bench = AuthorizerProvider()
    service.watch_bucket(CONFIG)(bench.apply_config)
    service.watch_bucket(CATALOGUE)(bench.apply_catalogue)
    service.watch_bucket(TOKENS)(bench.snapshot.bearers.apply_change)
    return bench


def _build_approvals(
    service: Service, bench: AuthorizerProvider, settings: Settings
) -> tuple[ApprovalService, ApproverService]:
    """Calls that wait for a person, those of them that are tasks, and who decides about them."""
    approval_repository = ApprovalRepository(settings.records(APPROVALS))
    task_repository = TaskRepository(settings.records(TASKS))
    service.watch_bucket(APPROVALS)(approval_repository.apply_change)
    service.watch_bucket(TASKS)(task_repository.apply_change)
    task_service = TaskService(
        task_repository,
        approval_repository,
        service.events,
        service.calls,
        service.bus,
        settings.reap_grace,
    )
    approval_service = ApprovalService(
        approval_repository, service.events, bench.bind, _approval_limits(settings), task_service
    )
    approvers = ApproverService(
        approval_repository, service.events, lambda: bench.snapshot, settings.approved_seconds
    )
    _serve_approvals(service, approvers)
    return approval_service, approvers


def _build_ledger_admin(
    service: Service,
    ledger: Ledger,
    bench: AuthorizerProvider,
    marks: LedgerWatcher,
    settings: Settings,
) -> tuple[Rebuilder, LedgerQueryHandler]:
    """Have lost counters made anew, and operators told what is in the books."""
    rebuilder = Rebuilder(
        service, ledger, lambda: bench.snapshot, settings.ledger_quiet, settings.reap_grace
    )
    marks.on_mark, ledger.on_lost = ledger.marked, rebuilder.lose
    ledger_handler = LedgerQueryHandler(
        ledger, rebuilder, lambda: bench.snapshot, lambda: marks.customers
    )
    service.answer_query(LedgerQuery)(ledger_handler.tell)
    service.answer_query(RebuildRequest)(ledger_handler.rebuild)
    return rebuilder, ledger_handler


async def _serve_admin(
    service: Service,
    bench: AuthorizerProvider,
    approvers: ApproverService,
    ledger_handler: LedgerQueryHandler,
    settings: Settings,
) -> None:
    """Let holders of admin keys, as far as their roles go, change what is declared."""
    config = await service.bucket(CONFIG)
    restrictions = RemoteRestrictions(
        tuple(settings.admin_commands.split()),
        tuple(settings.admin_variables.split()),
        settings.egress,
    )

    literals = Writer.at(settings.sealing)

    def repository_for(who: str) -> ConfigRepository:
        return ConfigRepository(service.bus, config, service.events, who, literals)

    admin_service = AdminService(
        bench.administrator, repository_for, approvers, ledger_handler.tell, restrictions
    )

    @service.answer_query(AdminRequest)
    async def administer(asked: AdminRequest) -> AdminReply:
        return await admin_service.answer(asked)


async def _build_claims(service: Service, settings: Settings) -> IdempotencyClaims:
    """Have calls with an idempotency key made once."""
    quota = OutcomeQuota(settings.most_outcomes, settings.most_outcome_bytes)
    once = IdempotencyClaims(quota, settings.records(OUTCOMES), settings.reap_grace)
    once.open(await service.bucket(OUTCOMES), service.spawn)
    return once


def _approval_limits(settings: Settings) -> ApprovalLimits:
    return ApprovalLimits(
        settings.approval_seconds,
        settings.approved_seconds,
        settings.most_pending,
        settings.public_url,
    )


def _serve_approvals(service: Service, approvers: ApproverService) -> None:
    """Let operators, and keys with the right to, see what waits and decide."""

    @service.answer_query(ApprovalsQuery)
    async def show(asked: ApprovalsQuery) -> ApprovalsReply:
        return await approvers.show(operator(""), asked.id)

    @service.answer_query(ApproveRequest)
    async def approve(asked: ApproveRequest) -> ApprovalsReply:
        return await approvers.decide(operator(asked.by), asked.id, asked.note, approve=True)

    @service.answer_query(RejectRequest)
    async def reject(asked: RejectRequest) -> ApprovalsReply:
        return await approvers.decide(operator(asked.by), asked.id, asked.note, approve=False)

    @service.answer_query(ApproverRequest)
    async def of_a_key(asked: ApproverRequest) -> ApprovalsReply:
        return await approvers.answer(asked)


async def _expire(approval_service: ApprovalService) -> None:
    """Without end: let what nobody decided or used in time be seen to end."""
    while True:
        await asyncio.sleep(EXPIRE_SECONDS)
        try:
            await approval_service.expire()
        except ToolbusError as error:
            log.warning("approvals.not_expired", extra={"reason": error.reason})


async def _ping(service: Service, ledger: Ledger) -> None:
    """Keep the service's own word about Redis true."""
    while True:
        reason = (
            "" if await ledger.store.reachable() else "Redis cannot be reached: spending is refused"
        )
        service.why_not = lambda reason=reason: reason  # type: ignore[misc]
        await asyncio.sleep(PING_SECONDS)


async def _mark(ledger: Ledger) -> None:
    """Have the bus remember how far the counters have come."""
    while True:
        await asyncio.sleep(MARK_SECONDS)
        try:
            await ledger.mark()
        except Exception as error:  # noqa: BLE001 - whatever it was, the next mark says more
            log.warning("ledger.not_marked", extra={"reason": str(error)})
