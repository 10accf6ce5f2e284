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
from toolbus_policy.admin.ledger_queries import Clerk
from toolbus_policy.admin.remote_restrictions import Reach
from toolbus_policy.admin.service import Office
from toolbus_policy.admission.authorizer import Judge
from toolbus_policy.admission.handler import Gate
from toolbus_policy.admission.plan_cache import Memory
from toolbus_policy.admission.rule_evaluator import Rulings
from toolbus_policy.approvals.approvers import Approvers, operator
from toolbus_policy.approvals.fingerprint import binding_of, definition_digest, policy_digest
from toolbus_policy.approvals.repository import Docket
from toolbus_policy.approvals.service import Approving, Terms
from toolbus_policy.approvals.tasks.repository import TaskBook
from toolbus_policy.approvals.tasks.service import Deferring
from toolbus_policy.idempotency.claims import Once
from toolbus_policy.idempotency.quota import Allowance
from toolbus_policy.ledger.epochs import BusEpochs, Marks
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.recovery.rebuild import Rebuilder
from toolbus_policy.ledger.recovery.unresolved_calls import Unended
from toolbus_policy.ledger.settlement import Settlement
from toolbus_policy.settings import Settings

log = logging.getLogger(__name__)

PING_SECONDS = 2.0
EXPIRE_SECONDS = 1.0
MARK_SECONDS = 1.0


class Bench:
    """Seats the judge: a new one where configuration or catalogue changed since the last call."""

    MOST_REMEMBERED = 50_000

    def __init__(self) -> None:
        self._directory = ConfigProjection()
        self._catalogue: dict[str, Listing] = {}
        self._rulings = Rulings()
        self._policies = Memory[tuple[str, str], str](self.MOST_REMEMBERED)
        self._judge: Judge | None = None

    def hear_config(self, change: Change | None) -> None:
        """Take one change of the configuration."""
        self._directory.hear(change)

    def hear_catalogue(self, change: Change | None) -> None:
        """Take one change of the catalogue."""
        if change is not None and change.value is not None:
            self._catalogue[change.key] = Listing.decode(change.value)
        elif change is not None:
            self._catalogue.pop(change.key, None)
        self._judge = None

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
    def judge(self) -> Judge:
        """Who decides now."""
        judge, snapshot = self._judge, self._directory.now
        if judge is None or judge.snapshot is not snapshot:
            judge = self._judge = self._seated(snapshot, judge)
        return judge

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

    def _seated(self, snapshot: ConfigSnapshot, before: Judge | None) -> Judge:
        same = before is not None and before.snapshot.declaration is snapshot.declaration
        standing = before.standing if before is not None and same else None
        return Judge(snapshot, self._catalogue, self._rulings.of(snapshot), standing)


def build(exchange: LocalTransport) -> Service:
    """Wire the service. Nothing connects until it runs."""
    settings = Settings()
    service = Service("policy", settings, exchange)
    bench, marks = _seated(service), Marks()
    service.watch_bucket(LEDGER)(marks.hear)
    approving, approvers = _consulted(service, bench, settings)
    docket, deferring = approving.docket, approving.deferring

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        epochs = BusEpochs(await service.bucket(LEDGER), service.events)
        ledger = Ledger(settings.redis_url.get_secret_value(), epochs, settings.redis_timeout)
        await _open(service, bench, docket)
        deferring.book.open(await service.bucket(TASKS))
        rebuilder, clerk = _keep_books(service, ledger, bench, marks, settings)
        await _administer(service, bench, approvers, clerk, settings)
        once = await _once(service, settings)
        gate = Gate(service, lambda: bench.judge, ledger, approving, once, settings.reap_grace)
        deferring.pass_on = gate.pass_deferred
        service.serve_calls(CallRequested)(gate.pass_through)
        await service.bus.subscribe(
            f"{CallCancelled.SUBJECT}.*",
            lambda data, *_: approving.cancel(CallCancelled.decode(data).call_id),
        )
        settlement = Settlement(service, ledger, lambda: marks.customers, settings.reap_grace)
        await settlement.follow()
        service.consume_events(seconds=0.5, pause=0.1)(settlement.hear)
        work = (
            settlement.reap(), rebuilder.work(), _ping(service, ledger), _mark(ledger),
            _expire(approving), follow_sizes(service.bus, OUTCOMES, once.allowance.hear),
            deferring.work(), Unended(service, ledger, settings.reap_grace).work(),
        )  # fmt: skip
        try:
            async with _beside(*work):
                yield
        finally:
            await ledger.close()

    service.add_resource(opened)
    return service


async def _open(service: Service, bench: Bench, docket: Docket) -> None:
    bench.snapshot.bearers.open(await service.bucket(TOKENS))
    docket.open(await service.bucket(APPROVALS))


@asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work without end, until this is left."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        await end(*tasks)


def _seated(service: Service) -> Bench:
    know_people(service)
    bench = Bench()
    service.watch_bucket(CONFIG)(bench.hear_config)
    service.watch_bucket(CATALOGUE)(bench.hear_catalogue)
    service.watch_bucket(TOKENS)(bench.snapshot.bearers.hear)
    return bench


def _consulted(service: Service, bench: Bench, settings: Settings) -> tuple[Approving, Approvers]:
    """Calls that wait for a person, those of them that are tasks, and who decides about them."""
    docket = Docket(settings.records(APPROVALS))
    book = TaskBook(settings.records(TASKS))
    service.watch_bucket(APPROVALS)(docket.hear)
    service.watch_bucket(TASKS)(book.hear)
    deferring = Deferring(
        book, docket, service.events, service.calls, service.bus, settings.reap_grace
    )
    approving = Approving(docket, service.events, bench.bind, _terms(settings), deferring)
    approvers = Approvers(docket, service.events, lambda: bench.snapshot, settings.approved_seconds)
    _answer(service, approvers)
    return approving, approvers


def _keep_books(
    service: Service, ledger: Ledger, bench: Bench, marks: Marks, settings: Settings
) -> tuple[Rebuilder, Clerk]:
    """Have lost counters made anew, and operators told what is in the books."""
    rebuilder = Rebuilder(
        service, ledger, lambda: bench.snapshot, settings.ledger_quiet, settings.reap_grace
    )
    marks.on_mark, ledger.on_lost = ledger.marked, rebuilder.lose
    clerk = Clerk(ledger, rebuilder, lambda: bench.snapshot, lambda: marks.customers)
    service.answer_query(LedgerQuery)(clerk.tell)
    service.answer_query(RebuildRequest)(clerk.rebuild)
    return rebuilder, clerk


async def _administer(
    service: Service, bench: Bench, approvers: Approvers, clerk: Clerk, settings: Settings
) -> None:
    """Let holders of admin keys, as far as their roles go, change what is declared."""
    config = await service.bucket(CONFIG)
    reach = Reach(
        tuple(settings.admin_commands.split()),
        tuple(settings.admin_variables.split()),
        settings.egress,
    )

    literals = Writer.at(settings.sealing)

    def desk_of(who: str) -> ConfigRepository:
        return ConfigRepository(service.bus, config, service.events, who, literals)

    office = Office(bench.administrator, desk_of, approvers, clerk.tell, reach)

    @service.answer_query(AdminRequest)
    async def administer(asked: AdminRequest) -> AdminReply:
        return await office.answer(asked)


async def _once(service: Service, settings: Settings) -> Once:
    """Have calls with an idempotency key made once."""
    allowance = Allowance(settings.most_outcomes, settings.most_outcome_bytes)
    once = Once(allowance, settings.records(OUTCOMES), settings.reap_grace)
    once.open(await service.bucket(OUTCOMES), service.spawn)
    return once


def _terms(settings: Settings) -> Terms:
    return Terms(
        settings.approval_seconds,
        settings.approved_seconds,
        settings.most_pending,
        settings.public_url,
    )


def _answer(service: Service, approvers: Approvers) -> None:
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


async def _expire(approving: Approving) -> None:
    """Without end: let what nobody decided or used in time be seen to end."""
    while True:
        await asyncio.sleep(EXPIRE_SECONDS)
        try:
            await approving.expire()
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
