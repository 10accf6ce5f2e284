"""The runs of agent mode: begun, continued, listed and cancelled."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

from toolbus_codemode.agent.automatic_tools import AutomaticTools
from toolbus_codemode.agent.dialects.base import Json, Turn
from toolbus_codemode.agent.dialects.select import (
    DIALECTS,
    earlier_runs,
    request_of,
    restored,
)
from toolbus_codemode.agent.model_turns import ModelTurns
from toolbus_codemode.agent.outlet import Outlet
from toolbus_codemode.agent.run import (
    LARGEST_CONVERSATION,
    AgentRun,
    cancel_calls,
    interrupted_calls,
    too_large,
)
from toolbus_codemode.agent.run_events import RunEvents
from toolbus_codemode.agent.run_quota import RunQuota
from toolbus_codemode.agent.run_record import (
    CLOSED,
    Content,
    RunRecord,
    State,
    digest_of_body,
)
from toolbus_codemode.agent.run_store import RunEntry, RunStore, closed_run
from toolbus_codemode.agent.tool_calls import ToolCalls
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.principal import Principal
from toolbus_common.access.session_owner import principal_id_of
from toolbus_common.calls.event_fields import extended
from toolbus_common.config.access.agent_mode import AgentMode
from toolbus_common.contracts import (
    CallAdmitted,
    CallResult,
    DeadlineExtended,
    OwnRunsRequest,
    RunsReply,
    RunsRequest,
)
from toolbus_common.contracts.agent_runs import LEASE, AgentCall, decode_agent_call
from toolbus_common.contracts.replies import CallContext
from toolbus_common.errors import (
    CallInProgressError,
    ConflictError,
    InvalidError,
    RateExceededError,
    ToolbusError,
    UnknownToolError,
)
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.service.service import Service

MAX_PAGE = 1000
MAX_AT_ONCE = 64  # runs of one principal in one replica


@dataclass(slots=True)
class AgentRuns:
    """Runner of agent mode on behalf of its callers."""

    service: Service
    directory: ConfigView
    quota: RunQuota = field(default_factory=RunQuota)
    store: RunStore = field(init=False, repr=False)
    _at_once: Counter[str] = field(default_factory=Counter)

    def open(self, bucket: Bucket) -> None:
        """Set the bucket of the runs."""
        self.store = RunStore(bucket, self.quota)

    async def run(
        self, call: CallAdmitted, principal: Principal, context: CallContext
    ) -> CallResult:
        """Run one request to its end, and return its response; it is empty after a stream.

        Raises:
            ToolbusError: the request is invalid, or the run failed; its message names the run.

        """
        owner = call.principal_id
        if self._at_once[owner] >= MAX_AT_ONCE:
            raise RateExceededError(
                f"'key:{call.key}' has {MAX_AT_ONCE} agent runs in progress in this replica, which "
                "is the limit. Wait until one of them has ended.",
                level=f"key:{call.key}",
            )
        self._at_once[owner] += 1
        try:
            return await self._run(call, principal, context)
        finally:
            self._at_once[owner] -= 1
            if not self._at_once[owner]:
                del self._at_once[owner]

    async def _run(
        self, call: CallAdmitted, principal: Principal, context: CallContext
    ) -> CallResult:
        requested = decode_agent_call(call.extra)
        limits = principal.own.agent
        if limits is None:
            raise UnknownToolError(
                "Agent mode is not enabled for this key. Set 'agent' of the key."
            )
        body = request_of(requested.method, call.arguments)
        entry, content = await self._started(call, requested, limits)
        events = RunEvents(call, principal, entry.record, self.service.events.publish)
        outlet = Outlet(context, self.service.calls.spawn) if requested.stream else None
        run = self._made(call, requested, limits, (entry, content, body, outlet))
        events.started()
        # Without a later deadline, a sweeper would report that the outcome of the call is unknown.
        self.service.events.publish(extended(call, run.models.outer.deadline + LEASE))
        beat = asyncio.create_task(_keep_waiting(context))
        try:
            earlier = await self._earlier(requested.method, body, call)
            run.calls.earlier = tuple(earlier)
            run.body = restored(requested.method, body, earlier)
            response = await run.run(principal)
        except asyncio.CancelledError:
            reason = "The client disconnected, the run was cancelled, or the service stopped."
            self.service.calls.spawn(_end(run, events, State.INTERRUPTED, "cancelled", reason))
            raise
        except ToolbusError as error:
            await _end(run, events, State.FAILED, error.code, error.reason)
            raise _about_run(error, entry.record.run) from error
        except BaseExceptionGroup as group:
            first = _first(group)
            await _end(run, events, State.FAILED, first.code, first.reason)
            raise _about_run(first, entry.record.run) from first
        except Exception:
            await _end(
                run, events, State.FAILED, "internal", "Internal error; see the log of codemode."
            )
            raise
        finally:
            beat.cancel()
        events.completed()
        return CallResult(response, outlet.parts if outlet is not None else 0)

    def _made(
        self,
        call: CallAdmitted,
        requested: AgentCall,
        limits: AgentMode,
        state: tuple[RunEntry, Content, Json, Outlet | None],
    ) -> AgentRun:
        entry, content, body, outlet = state
        record = entry.record
        left = max(1.0, limits.seconds - content.used.seconds)
        outer = call.model_copy(update={"deadline": time() + left})
        calls = ToolCalls(self.service, self.directory, outer, record.run, record.trace)
        run = AgentRun(
            self.service,
            entry,
            content,
            limits,
            DIALECTS[requested.method],
            body,
            call.key_digest,
            AutomaticTools(self.directory, call.key_digest, requested.names),
            calls,
            outlet,
        )
        run.models = ModelTurns(
            self.service,
            self.directory,
            outer,
            requested,
            record.run,
            record.trace,
            run.begin_model_call,
            run.note_report,
            run.note_failure,
        )
        return run

    async def _started(
        self, call: CallAdmitted, requested: AgentCall, limits: AgentMode
    ) -> tuple[RunEntry, Content]:
        """Return a new run, or the run to continue. The request becomes the only writer of the run.

        Raises:
            UnknownEntryError: no such run exists for this principal.
            ConflictError: the run was cancelled.
            InvalidError: the request differs from the one that started the run.
            UnavailableError: the content cannot be decrypted, or the bus is down.

        """
        now = time()
        body = digest_of_body(requested.method, requested.body_digest.encode() or call.arguments)
        if not requested.resumed:
            record = RunRecord(
                run=call.call_id,
                principal=call.principal_id,
                customer=call.customer,
                key=call.key,
                method=requested.method,
                model=requested.model,
                call=call.call_id,
                body=body,
                trace=call.traceparent,
                started=now,
                updated=now,
            )
            return self.store.new(record), Content()
        entry = await self.store.get(call.principal_id, requested.resumed)
        record = entry.record
        if record.state in CLOSED:
            raise closed_run(record.run)
        if record.body != body:
            raise InvalidError(
                f"The request is not the one that started run '{record.run}'. Send the same body "
                "again, or remove the header 'x-toolbus-run' to start a new run."
            )
        if record.state is State.COMPLETED and not record.sealed:
            raise ConflictError(
                f"The run '{record.run}' has completed, and its response was too large to store. "
                "Start another run."
            )
        if not record.sealed and record.turns:
            raise ConflictError(
                f"The content of run '{record.run}' was too large to store, so it cannot be "
                "continued. Start another run."
            )
        content = record.open(call.key_digest)
        content.used.settle_interrupted(limits)
        left_over = interrupted_calls(entry)
        for step in record.steps:
            if step.state == "running":
                step.state, step.waiting = "unknown", False
        record.call, record.approval = call.call_id, ""
        if record.state not in (State.COMPLETED, State.PENDING):
            record.state = State.RUNNING
        record.seal(content, call.key_digest)
        await entry.save()
        await cancel_calls(self.service, left_over)
        return entry, content

    async def _earlier(self, method: str, body: Json, call: CallAdmitted) -> dict[str, list[Turn]]:
        """Return the turns of earlier runs that the conversation refers to.

        A run that expired, or whose content cannot be decrypted, is omitted: the conversation is
        valid without it.

        Raises:
            InvalidError: all turns together are too large for a request.
            BusDownError: a run could not be read.

        """
        found: dict[str, list[Turn]] = {}
        size = len(call.arguments)
        for run in earlier_runs(method, body):
            entry = await self.store.find(call.principal_id, run)
            if entry is None:
                continue
            size += len(entry.record.sealed) * 3 // 4
            if size > LARGEST_CONVERSATION:
                raise too_large(size)
            try:
                turns = entry.record.open(call.key_digest).turns
            except ToolbusError:
                continue
            if turns:
                found[run] = turns
        return found

    # -- queries -------------------------------------------------------------------------------

    async def answer(self, request: RunsRequest) -> RunsReply:
        """Answer an operator. Raises `UnknownEntryError`, `ConflictError` or `BusDownError`."""
        return await self._answer(request, None, lambda: self.store.of_anyone(request.run))

    async def answer_own(self, request: OwnRunsRequest) -> RunsReply:
        """Answer a caller, about its own runs. Raises like `answer`, and `UnauthorizedError`."""
        principal = await self.directory.now.caller(request.key_digest)
        owner = principal_id_of(principal, request.key_digest)
        return await self._answer(
            request, owner, lambda: self.store.get(owner, request.run, whole=False)
        )

    async def _answer(
        self,
        request: RunsRequest | OwnRunsRequest,
        owner: str | None,
        find: Callable[[], Awaitable[RunEntry]],
    ) -> RunsReply:
        if not request.run:
            limit = max(1, min(request.limit, MAX_PAGE))
            records, more = await self.store.list(owner, limit, request.after)
            return RunsReply(runs=tuple(each.shown(whole=False) for each in records), more=more)
        entry = await find()
        if request.cancel:
            entry = await self._cancelled(entry, find)
        return RunsReply(runs=(entry.record.shown(whole=True),))

    async def _cancelled(
        self, entry: RunEntry, find: Callable[[], Awaitable[RunEntry]]
    ) -> RunEntry:
        """Cancel a run for good: its request ends, and no request can continue it."""
        for _ in range(_ATTEMPTS):
            record = entry.record
            if record.state in _OVER:
                raise ConflictError(
                    f"The run '{record.run}' is {record.state}, so it cannot be cancelled."
                )
            record.state, record.code = State.CANCELLED, "cancelled"
            record.reason = "The run was cancelled by its owner or an operator."
            left_over = [each.call_id for each in record.steps if each.state == "running"]
            try:
                await entry.save()
            except CallInProgressError:
                entry = await find()
                continue
            await cancel_calls(self.service, [record.call, *filter(None, left_over)])
            return entry
        raise ConflictError(f"The run '{entry.record.run}' keeps changing; repeat the request.")


_ATTEMPTS = 8
_OVER = frozenset({State.COMPLETED, State.PENDING, State.CANCELLED})


async def _keep_waiting(context: CallContext) -> None:
    """Extend the time that the caller waits, as long as this process lives."""
    while True:
        await context.send(DeadlineExtended(time() + LEASE))
        await asyncio.sleep(LEASE / 4)


async def _end(run: AgentRun, events: RunEvents, state: State, code: str, reason: str) -> None:
    if run.outlet is not None:
        await run.outlet.drain()
    await run.end_badly(state, code, reason)
    events.failed(code, reason)


def _about_run(error: ToolbusError, run: str) -> ToolbusError:
    """Return the error with the id of the run, and how to continue it."""
    reason = (
        f"{error.reason} This ended run '{run}': to continue it, send the same request with the "
        f"header 'x-toolbus-run: {run}'."
    )
    data: dict[str, Any] = {**error.data, "run": run}
    return type(error)(reason, **data)


def _first(group: BaseExceptionGroup[BaseException]) -> ToolbusError:
    """Return the first error of several parallel calls."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            return _first(each)
        if isinstance(each, ToolbusError):
            return each
    return ToolbusError("Internal error; see the log of codemode.")
