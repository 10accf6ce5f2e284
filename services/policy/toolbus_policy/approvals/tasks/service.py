"""Run calls that wait for approval as MCP tasks: create, run once approved, report, cancel."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Any

import msgspec
from tenacity import stop_after_attempt

from toolbus_common.contracts import (
    FOLLOW,
    CallError,
    CallRequested,
    CallResult,
    FinalReply,
    ProtocolFamily,
    TaskCreated,
)
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import (
    ApprovalRequiredError,
    BusDownError,
    CallInProgressError,
    InvalidError,
    RateExceededError,
    ToolbusError,
    UnavailableError,
    UpstreamTimeoutError,
)
from toolbus_common.messaging.call_transport import CallTransport
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.retries import Backoff, retrying
from toolbus_policy.approvals.elicitation import REQUEST_NAME, supports_url_elicitation
from toolbus_policy.approvals.model import OPEN, Approval, State, event_of, withdrawn
from toolbus_policy.approvals.repository import ApprovalRepository, StoredApproval
from toolbus_policy.approvals.tasks import model as tasks
from toolbus_policy.approvals.tasks.model import (
    MAX_TASKS_PER_KEY,
    DeferredCall,
    Stage,
    Step,
    end_error,
    next_step,
    task_id_of,
)
from toolbus_policy.approvals.tasks.repository import StoredTask, TaskRepository
from toolbus_policy.approvals.tasks.views import ACKNOWLEDGED, created_reply, task_reply

log = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
CANCEL_SECONDS = 5.0  # to wait for a cancelled call to end
MARGIN_SECONDS = 1.0  # a wait ends this long before the request's deadline
ATTEMPTS = 8
FIRST_RETRY, LONGEST_RETRY = 0.1, 10.0
BATCH_SIZE = 200  # tasks examined before yielding to the event loop
# The call was not dispatched, and a later attempt may succeed.
RETRYABLE = (UnavailableError, RateExceededError, CallInProgressError)

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

# Admits an approved call for a key: the call, its context, the key and the approval.
RunApproved = Callable[[CallRequested, CallContext, str, str], Awaitable[Reply | None]]


@dataclass(slots=True)
class TaskService:
    """The deferred calls.

    `run_approved` is a method of the admission handler, which authorizes each call again.
    """

    task_repository: TaskRepository
    approval_repository: ApprovalRepository
    events: EventPublisher
    calls: CallTransport
    grace: float
    run_approved: RunApproved = field(init=False)
    _busy: set[str] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    # -- life of a task ----------------------------------------------------------------------

    async def create(
        self, call: CallRequested, approval: Approval, page: str
    ) -> TaskCreated | None:
        """Return the task of a suspended call; None if the key has too many tasks.

        If the task exists already, return the existing task. Return None if the existing task
        belongs to the other protocol family.
        """
        entry = await self.task_repository.load(approval.id)
        if entry is None:
            if self.task_repository.count_for_key(approval.key) >= MAX_TASKS_PER_KEY:
                return None
            opens = call.family is ProtocolFamily.MODERN and supports_url_elicitation(
                call.capabilities
            )
            made = tasks.new_deferred_call(call, approval, page, time(), opens_pages=opens)
            entry = await self.task_repository.put(made, None) or await self.task_repository.load(
                approval.id
            )
        if entry is None or entry.task.family is not call.family:
            return None
        return created_reply(entry.task)

    async def run(self) -> None:
        """Run due steps forever, after each change and at least every `SWEEP_SECONDS`."""
        self.task_repository.on_change = self.approval_repository.on_change = self._changed.set
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            for number, task in enumerate(self.task_repository.all(), 1):
                self._start_due_step(task)
                if number % BATCH_SIZE == 0:  # calls share the event loop
                    await asyncio.sleep(0)

    def _start_due_step(self, task: DeferredCall) -> None:
        stored = self.approval_repository.find(task.binding)
        approval = stored.approval if stored is not None else None
        if task.id not in self._busy and next_step(task, approval, time()) is not Step.NOTHING:
            self._busy.add(task.id)
            self.calls.spawn(self._run_due_step(task.id))

    async def _run_due_step(self, task: str) -> None:
        """Run the due step of one task, as stored in the bucket."""
        try:
            entry = await self.task_repository.load(task)
            stored = (
                await self.approval_repository.load(entry.task.binding)
                if entry is not None
                else None
            )
            if entry is not None:
                await self._step(entry, stored)
        except ToolbusError as error:
            log.warning("task.step_failed", extra={"task": task, "reason": error.reason})
        except Exception:
            log.exception("task.step_failed", extra={"task": task})
        finally:
            self._busy.discard(task)

    async def _step(self, entry: StoredTask, stored: StoredApproval | None) -> None:
        approval = stored.approval if stored is not None else None
        step = next_step(entry.task, approval, time())
        if step is Step.RUN and stored is not None:
            await self._run(entry, stored)
        elif step is Step.END:
            why = CallError(end_error(entry.task, approval))
            await self.task_repository.put(tasks.ended(entry.task, why, time()), entry)
        elif step is Step.FORGET:
            await self.task_repository.forget(entry.task.id)

    async def _run(self, entry: StoredTask, stored: StoredApproval) -> None:
        """Make the call, unless another replica does."""
        waiting, call_id = entry.task, self.calls.new_call_id()
        taken = await self.task_repository.put(
            tasks.running(waiting, call_id, time(), self.grace), entry
        )
        if taken is None:
            return
        running = _RunningTask(self.task_repository, taken, self.grace, self.calls.spawn)
        arguments, address = stored.approval.arguments.encode(), self.calls.address(call_id)
        call = tasks.rebuild_request(waiting, arguments, call_id, address, time())
        result: FinalReply | CallError
        try:
            made = partial(self._pass_on, waiting)
            result = await self.calls.request(call, on_extended=running.extend, handler=made)
        except ToolbusError as error:
            if isinstance(error, RETRYABLE) and await self._still_approved(stored, call_id):
                last = await running.stop()
                await self._put(tasks.postponed(last.task, waiting, error.reason), last)
                return
            result = CallError(error)
        last = await running.stop()
        await self._put(tasks.ended(last.task, result, time()), last)

    async def _pass_on(
        self, waiting: DeferredCall, call: CallRequested, context: CallContext
    ) -> Reply | None:
        return await self.run_approved(call, context, waiting.key, waiting.id)

    async def _still_approved(self, before: StoredApproval, call_id: str) -> bool:
        """Return whether the approval can be used again by a call that was not dispatched.

        If another call used the approval meanwhile, that call was made and nothing is restored.
        """
        now = await self.approval_repository.load(before.approval.binding)
        if now is None or now.approval.id != before.approval.id:
            return False
        if now.approval.state is State.USED and now.approval.used_by == call_id:
            return await self.approval_repository.put(before.approval, now)
        return now.approval.state is State.GRANTED

    async def _put(self, task: DeferredCall, previous: StoredTask) -> None:
        """Store the result of a call, retrying while the bus is unreachable."""
        retry = retrying(
            Backoff(FIRST_RETRY, LONGEST_RETRY), BusDownError, stop=stop_after_attempt(ATTEMPTS)
        )
        try:
            await retry(self.task_repository.put, task, previous)
        except BusDownError:
            log.error("task.outcome_lost", extra={"task": task.id})  # noqa: TRY400 - expected

    # -- requests about a task ---------------------------------------------------------------

    async def handle_request(self, call: CallRequested, key: str) -> FinalReply | CallRequested:
        """Return the reply to a task request, or the request to dispatch to the task's server.

        Raises:
            ToolbusError: the error with which the task ended, or the reason for a missing reply.

        """
        entry = await self._owned(call, key)
        if call.method == "tasks/cancel":
            await self._cancel(entry)
        elif call.method == "tasks/result":
            seconds = call.deadline - time() - MARGIN_SECONDS
            await self.task_repository.wait_until_ended(entry.task.id, max(0.0, seconds))
        elif call.method == "tasks/update":
            await self._record_page_response(call, entry)
        task = (await self._owned(call, key)).task
        if task.stage is Stage.ENDED and isinstance(task.reply, TaskCreated):
            return _redirect_to_upstream_task(call, task.reply)
        return _answer(call, task)

    async def _owned(self, call: CallRequested, key: str) -> StoredTask:
        entry = await self.task_repository.load(task_id_of(call))
        owner = (key, call.server, call.tool, call.family)
        task = entry.task if entry is not None else None
        if task is None or (task.key, task.server, task.tool, task.family) != owner:
            raise InvalidError("Unknown task: this key has no such task, or the task expired.")
        return entry  # type: ignore[return-value]

    async def _cancel(self, entry: StoredTask) -> None:
        """Withdraw the approval, or cancel the running call."""
        task = entry.task
        if task.stage is Stage.ENDED:
            if task.family is ProtocolFamily.LEGACY and not isinstance(task.reply, TaskCreated):
                raise InvalidError("The task has already ended, so it cannot be cancelled.")
            return
        if not await self._withdraw_approval(task):
            running = (await self.task_repository.load(task.id) or entry).task
            await self.calls.cancel(running.call_id or task.id)
        await self.task_repository.wait_until_ended(task.id, CANCEL_SECONDS)

    async def _withdraw_approval(self, task: DeferredCall) -> bool:
        """Withdraw the approval; return whether it can no longer be used by any call."""
        for _ in range(ATTEMPTS):
            stored = await self.approval_repository.load(task.binding)
            if stored is None or stored.approval.id != task.id:
                return True
            if stored.approval.state not in OPEN or not stored.approval.is_current(time()):
                return stored.approval.state is not State.USED
            back = withdrawn(stored.approval)
            if await self.approval_repository.put(back, stored):
                self.events.publish(event_of(back, time()))
                return True
        raise BusDownError("Concurrent changes to this approval kept conflicting; retry.")

    async def _record_page_response(self, call: CallRequested, entry: StoredTask) -> None:
        """Record any response to the page, so that it is not requested again."""
        answers = _members(call.arguments).get("inputResponses", msgspec.Raw(b"{}"))
        task = entry.task
        requested = task.opens_pages and task.stage is Stage.WAITING
        if requested and REQUEST_NAME in _members(answers):
            await self.task_repository.put(tasks.page_opened(task, time()), entry)


class _RunningTask:
    """The entry of a task whose call is running, extended to the call's latest deadline."""

    def __init__(
        self,
        task_repository: TaskRepository,
        entry: StoredTask,
        grace: float,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._book = task_repository
        self._entry = entry
        self._grace = grace
        self._spawn = spawn
        self._turn = asyncio.Lock()

    def extend(self, deadline: float) -> None:
        """Store a later deadline in the background."""
        self._spawn(self._write(deadline))

    async def stop(self) -> StoredTask:
        """Return the entry as last written, after the write in progress."""
        async with self._turn:
            return self._entry

    async def _write(self, deadline: float) -> None:
        async with self._turn:
            later = tasks.extended(self._entry.task, deadline, self._grace)
            try:
                self._entry = await self._book.put(later, self._entry) or self._entry
            except BusDownError as error:
                log.warning("task.not_extended", extra={"reason": error.reason})


def _answer(call: CallRequested, task: DeferredCall) -> FinalReply:
    if call.method == FOLLOW:
        raise InvalidError(
            "A task that waits for approval sends no notifications; poll 'tasks/get'."
        )
    if call.method == "tasks/result":
        return _result(task)
    if task.family is ProtocolFamily.MODERN and call.method != "tasks/get":
        return CallResult(ACKNOWLEDGED)
    return task_reply(task)


def _result(task: DeferredCall) -> FinalReply:
    if task.stage is Stage.WAITING:
        raise ApprovalRequiredError(
            f"This call is not approved yet: approve it at {task.page}, then request the result "
            "again.",
            approval=task.id,
            page=task.page,
        )
    if task.stage is Stage.RUNNING:
        raise UpstreamTimeoutError("The approved call is still running; request its result again.")
    reply = task.reply
    if isinstance(reply, CallError):
        raise reply.error
    return reply


def _redirect_to_upstream_task(call: CallRequested, reply: TaskCreated) -> CallRequested:
    """Return the same request for the task that the server created."""
    task_reply = _members(reply.body)
    task = _members(task_reply["task"]) if "task" in task_reply else task_reply
    arguments = {**_members(call.arguments), "taskId": task.get("taskId", msgspec.Raw(b'""'))}
    return call.model_copy(update={"arguments": msgspec.json.encode(arguments)})
