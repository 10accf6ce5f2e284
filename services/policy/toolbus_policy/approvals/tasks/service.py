"""Calls that wait for a person as tasks: begun, run once approved, told of, taken back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Any

import msgspec

from toolbus_common.contracts import (
    FOLLOW,
    CallCancelled,
    CallError,
    CallRequested,
    CallResult,
    FinalReply,
    ProtocolFamily,
    TaskCreated,
)
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import (
    ApprovalRequiredError,
    BusDownError,
    CallUnderWayError,
    InvalidError,
    RateExceededError,
    ToolbusError,
    UnavailableError,
    UpstreamTimeoutError,
)
from toolbus_common.messaging.call_transport import CallTransport
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.connection import Bus
from toolbus_policy.approvals.elicitation import QUESTION, can_open_pages
from toolbus_policy.approvals.model import OPEN, Approval, State, event_of, withdrawn
from toolbus_policy.approvals.repository import Docket, Kept
from toolbus_policy.approvals.tasks import model as tasks
from toolbus_policy.approvals.tasks.model import (
    MOST_OF_A_KEY,
    Deferred,
    Stage,
    Step,
    due,
    task_of,
    why_ended,
)
from toolbus_policy.approvals.tasks.repository import Entry, TaskBook
from toolbus_policy.approvals.tasks.views import ACKNOWLEDGED, begun, told

log = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
CANCEL_SECONDS = 5.0  # to hear that a call which is under way has ended
MARGIN_SECONDS = 1.0  # before its deadline, who waits for a result is told that there is none yet
ATTEMPTS = 8
AT_ONCE = 200  # tasks looked at in one turn of the event loop
# Nothing was sent, and later it may be.
AGAIN = (UnavailableError, RateExceededError, CallUnderWayError)

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

# Makes an approved call in the name of a key: the call, where its answer goes, key and approval.
PassOn = Callable[[CallRequested, ReplyChannel, str, str], Awaitable[None]]


@dataclass(slots=True)
class Deferring:
    """The deferred calls. `pass_on` is the gate's, which decides about each of them anew."""

    book: TaskBook
    docket: Docket
    events: EventPublisher
    lane: CallTransport
    bus: Bus
    grace: float
    pass_on: PassOn = field(init=False)
    _busy: set[str] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    # -- what happens to them ----------------------------------------------------------------

    async def begin(self, call: CallRequested, approval: Approval, page: str) -> TaskCreated | None:
        """The task of a call that waits; None when this key has too many to be given another."""
        entry = await self.book.whole(approval.id)
        if entry is None:
            if self.book.of_key(approval.key) >= MOST_OF_A_KEY:
                return None
            opens = call.family is ProtocolFamily.MODERN and can_open_pages(call.capabilities)
            made = tasks.deferred(call, approval, page, time(), opens_pages=opens)
            entry = await self.book.put(made, None) or await self.book.whole(approval.id)
        if entry is None or entry.task.family is not call.family:
            return None
        return begun(entry.task)

    async def work(self) -> None:
        """Without end: do what is due, whenever something changed and now and then."""
        self.book.on_change = self.docket.on_change = self._changed.set
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            for number, task in enumerate(self.book.every(), 1):
                self._begin_to_settle(task)
                if number % AT_ONCE == 0:  # the loop is that of calls
                    await asyncio.sleep(0)

    def _begin_to_settle(self, task: Deferred) -> None:
        kept = self.docket.find(task.binding)
        approval = kept.approval if kept is not None else None
        if task.id not in self._busy and due(task, approval, time()) is not Step.NOTHING:
            self._busy.add(task.id)
            self.lane.spawn(self._settle(task.id))

    async def _settle(self, task: str) -> None:
        """Do what is due, by what the buckets have."""
        try:
            entry = await self.book.whole(task)
            kept = await self.docket.whole(entry.task.binding) if entry is not None else None
            if entry is not None:
                await self._step(entry, kept)
        except ToolbusError as error:
            log.warning("task.not_settled", extra={"task": task, "reason": error.reason})
        except Exception:
            log.exception("task.not_settled", extra={"task": task})
        finally:
            self._busy.discard(task)

    async def _step(self, entry: Entry, kept: Kept | None) -> None:
        approval = kept.approval if kept is not None else None
        step = due(entry.task, approval, time())
        if step is Step.RUN and kept is not None:
            await self._run(entry, kept)
        elif step is Step.END:
            why = CallError(why_ended(entry.task, approval))
            await self.book.put(tasks.ended(entry.task, why, time()), entry)
        elif step is Step.FORGET:
            await self.book.forget(entry.task.id)

    async def _run(self, entry: Entry, kept: Kept) -> None:
        """Make the call, unless another replica does."""
        waiting, call_id = entry.task, self.lane.new_call_id()
        taken = await self.book.put(tasks.running(waiting, call_id, time(), self.grace), entry)
        if taken is None:
            return
        running = _Running(self.book, taken, self.grace, self.lane.spawn)
        arguments, address = kept.approval.arguments.encode(), self.lane.address(call_id)
        call = tasks.revived(waiting, arguments, call_id, address, time())
        ending: FinalReply | CallError
        try:
            made = partial(self._pass_on, waiting)
            ending = await self.lane.ask_here(call, made, running.extend)
        except ToolbusError as error:
            if isinstance(error, AGAIN) and await self._still_approved(kept, call_id):
                last = await running.stop()
                await self._put(tasks.put_off(last.task, waiting, error.reason), last)
                return
            ending = CallError(error)
        last = await running.stop()
        await self._put(tasks.ended(last.task, ending, time()), last)

    async def _pass_on(self, waiting: Deferred, call: CallRequested, reply: ReplyChannel) -> None:
        await self.pass_on(call, reply, waiting.key, waiting.id)

    async def _still_approved(self, before: Kept, call_id: str) -> bool:
        """Whether the approval can be used once more, by a call that has not been made.

        Another call may have used it meanwhile: that one was made, and nothing is given back.
        """
        now = await self.docket.whole(before.approval.binding)
        if now is None or now.approval.id != before.approval.id:
            return False
        if now.approval.state is State.USED and now.approval.used_by == call_id:
            return await self.docket.put(before.approval, now)
        return now.approval.state is State.GRANTED

    async def _put(self, task: Deferred, over: Entry) -> None:
        """Write what became of a call; the bus may be away for a moment."""
        for attempt in range(ATTEMPTS):
            try:
                await self.book.put(task, over)
            except BusDownError:
                await asyncio.sleep(0.1 * 2**attempt)
            else:
                return
        log.error("task.outcome_lost", extra={"task": task.id})

    # -- what their owners ask ---------------------------------------------------------------

    async def answer(self, call: CallRequested, key: str) -> FinalReply | CallRequested:
        """The answer to a request about one; or the request to pass on, to who began a task of it.

        Raises:
            ToolbusError: what it ended with, or why there is nothing to tell.

        """
        entry = await self._owned(call, key)
        if call.method == "tasks/cancel":
            await self._cancel(entry)
        elif call.method == "tasks/result":
            seconds = call.deadline - time() - MARGIN_SECONDS
            await self.book.until_ended(entry.task.id, max(0.0, seconds))
        elif call.method == "tasks/update":
            await self._take_answers(call, entry)
        task = (await self._owned(call, key)).task
        if task.stage is Stage.ENDED and isinstance(task.frame, TaskCreated):
            return _about(call, task.frame)
        return _answer(call, task)

    async def _owned(self, call: CallRequested, key: str) -> Entry:
        entry = await self.book.whole(task_of(call))
        asker = (key, call.server, call.tool, call.family)
        task = entry.task if entry is not None else None
        if task is None or (task.key, task.server, task.tool, task.family) != asker:
            raise InvalidError("Unknown task: it is not one of this key's, or ended long ago.")
        return entry  # type: ignore[return-value]

    async def _cancel(self, entry: Entry) -> None:
        """Take back the approval, or else the call."""
        task = entry.task
        if task.stage is Stage.ENDED:
            if task.family is ProtocolFamily.LEGACY and not isinstance(task.frame, TaskCreated):
                raise InvalidError("The task has ended already; there is nothing to cancel.")
            return
        if not await self._withdrawn(task):
            running = (await self.book.whole(task.id) or entry).task
            cancelled = CallCancelled(call_id=running.call_id or task.id)
            await self.bus.publish(cancelled.subject, cancelled.encode())
        await self.book.until_ended(task.id, CANCEL_SECONDS)

    async def _withdrawn(self, task: Deferred) -> bool:
        """Take the approval back; whether no call can use it any more."""
        for _ in range(ATTEMPTS):
            kept = await self.docket.whole(task.binding)
            if kept is None or kept.approval.id != task.id:
                return True
            if kept.approval.state not in OPEN or not kept.approval.stands(time()):
                return kept.approval.state is not State.USED
            back = withdrawn(kept.approval)
            if await self.docket.put(back, kept):
                self.events.publish(event_of(back, time()))
                return True
        raise BusDownError("This approval is being changed by others all the time; retry.")

    async def _take_answers(self, call: CallRequested, entry: Entry) -> None:
        """Whatever was answered, the page has been shown: it is not asked for again."""
        answers = _members(call.arguments).get("inputResponses", msgspec.Raw(b"{}"))
        task = entry.task
        asked = task.opens_pages and task.stage is Stage.WAITING
        if asked and QUESTION in _members(answers):
            await self.book.put(tasks.page_opened(task, time()), entry)


class _Running:
    """The entry of a task whose call is under way, kept until the call's latest deadline."""

    def __init__(
        self,
        book: TaskBook,
        entry: Entry,
        grace: float,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._book = book
        self._entry = entry
        self._grace = grace
        self._spawn = spawn
        self._turn = asyncio.Lock()

    def extend(self, deadline: float) -> None:
        """Write a later deadline, beside everything else."""
        self._spawn(self._write(deadline))

    async def stop(self) -> Entry:
        """Return the entry as it was last written."""
        async with self._turn:
            return self._entry

    async def _write(self, deadline: float) -> None:
        async with self._turn:
            later = tasks.extended(self._entry.task, deadline, self._grace)
            try:
                self._entry = await self._book.put(later, self._entry) or self._entry
            except BusDownError as error:
                log.warning("task.not_extended", extra={"reason": error.reason})


def _answer(call: CallRequested, task: Deferred) -> FinalReply:
    if call.method == FOLLOW:
        raise InvalidError("Of a task that waits for a person nothing is told unasked: look at it.")
    if call.method == "tasks/result":
        return _result(task)
    if task.family is ProtocolFamily.MODERN and call.method != "tasks/get":
        return CallResult(ACKNOWLEDGED)
    return told(task)


def _result(task: Deferred) -> FinalReply:
    if task.stage is Stage.WAITING:
        raise ApprovalRequiredError(
            f"No person has approved this call yet: have it approved at {task.page}, then ask for "
            "the result again.",
            approval=task.id,
            page=task.page,
        )
    if task.stage is Stage.RUNNING:
        raise UpstreamTimeoutError("The approved call is under way; ask for its result again.")
    frame = task.frame
    if isinstance(frame, CallError):
        raise frame.error
    return frame


def _about(call: CallRequested, frame: TaskCreated) -> CallRequested:
    """The same request about the task the server began, once it was asked."""
    told = _members(frame.body)
    task = _members(told["task"]) if "task" in told else told
    arguments = {**_members(call.arguments), "taskId": task.get("taskId", msgspec.Raw(b'""'))}
    return call.model_copy(update={"arguments": msgspec.json.encode(arguments)})
