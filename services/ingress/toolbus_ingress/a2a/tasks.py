"""Tasks of A2A clients: calls in progress in this replica, and their results for an hour.

A task belongs to the principal that began it. Anonymous callers have no tasks after the response.
"""

import asyncio
import secrets
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, time

import msgspec

from toolbus_common.a2a.protocol import Part
from toolbus_common.access.anonymous import is_anonymous
from toolbus_common.contracts import CallNotification, Progress
from toolbus_common.errors import OverloadedError, ToolbusError
from toolbus_ingress.a2a.message import parts_in
from toolbus_ingress.auth.request_context import Caller

MAX_RUNNING = 1_000
MAX_RUNNING_OF_ONE = 100
MAX_KEPT = 2_000
MAX_KEPT_OF_ONE = 200
MAX_KEPT_BYTES = 64 << 20
KEPT_SECONDS = 3600.0
MAX_WAITING = 128  # updates for a slow reader; the oldest are dropped
LONGEST_PROGRESS = 1_000  # characters

_REJECTED = frozenset(
    {"budget_exceeded", "run_budget_exceeded", "rate_exceeded", "refused", "rule_denied",
     "approval_required", "approval_rejected", "guard_blocked", "flow_refused", "forbidden"}
)  # fmt: skip
INVALID = frozenset({"unknown_tool", "invalid", "invalid_arguments"})


class _Progress(msgspec.Struct):
    """The member of a progress notification that is shown."""

    message: str | None = None


_progress = msgspec.json.Decoder(_Progress).decode


@dataclass(frozen=True, slots=True)
class Status:
    """A state of a task, named as in A2A 0.3; `words` is the agent's message."""

    state: str
    words: tuple[Part, ...] = ()
    at: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the task has ended."""
        return self.state not in ("submitted", "working")

    @property
    def timestamp(self) -> str:
        """The time of the state."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return at.replace("+00:00", "Z")


class Listener:
    """The updates of one task for one stream. The last update reports the end of the task."""

    def __init__(self) -> None:
        self._waiting: deque[Status] = deque(maxlen=MAX_WAITING)
        self._event = asyncio.Event()
        self.left = False

    def put(self, status: Status) -> None:
        """Add an update."""
        self._waiting.append(status)
        self._event.set()

    def leave(self) -> None:
        """End the stream, because its client disconnected."""
        self.left = True
        self._event.set()

    async def next(self, seconds: float) -> Status | None:
        """Return the next update; None after `seconds` without one, or if the client left."""
        if not self._waiting and not self.left:
            self._event.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._event.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft() if self._waiting and not self.left else None


@dataclass(slots=True)
class Task:
    """One call. `error` is the error it failed with."""

    id: str
    context: str
    owner: str
    call_id: str
    status: Status
    message: tuple[Part, ...] = ()  # the client's message
    parts: tuple[Part, ...] = ()  # the artifact
    error: ToolbusError | None = None
    size: int = 0
    ended_at: float = 0.0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    listeners: set[Listener] = field(default_factory=set)

    def notified(self, notification: CallNotification) -> None:
        """Report progress of the call."""
        if not isinstance(notification, Progress) or self.status.ended:
            return
        text = ""
        with suppress(msgspec.MsgspecError, RecursionError):
            text = (_progress(notification.body).message or "")[:LONGEST_PROGRESS]
        self._become(Status("working", (Part(text=text),) if text else (), time()))

    def completed(self, result: bytes) -> None:
        """Store the result of the call."""
        self.size, (parts, failed) = len(result), parts_in(result)
        if failed:
            self._become(Status("failed", parts, time()))
        else:
            self.parts = parts
            self._become(Status("completed", (), time()))

    def failed(self, error: ToolbusError) -> None:
        """Store the error that the call ended with."""
        self.error = error
        state = "rejected" if error.code in _REJECTED else "failed"
        state = "canceled" if error.code == "cancelled" else state
        words = Part(text=f"{error.code}: {error.reason}")
        self._become(Status(state, (words,), time()))

    def _become(self, status: Status) -> None:
        self.status = status
        if status.ended:
            self.ended_at = monotonic()
            self.done.set()
        for each in self.listeners:
            each.put(status)


class Tasks:
    """The tasks of this replica."""

    def __init__(self) -> None:
        self._running: dict[str, Task] = {}
        self._kept: OrderedDict[str, Task] = OrderedDict()
        self._bytes = 0

    def begin(self, caller: Caller, call_id: str, context: str) -> Task:
        """Return a new task. Raises `OverloadedError`."""
        own = sum(1 for each in self._running.values() if each.owner == caller.principal_id)
        if len(self._running) >= MAX_RUNNING or own >= MAX_RUNNING_OF_ONE:
            raise OverloadedError("Too many tasks are running. Wait for some of them, and retry.")
        task = Task(
            secrets.token_hex(16),
            context or secrets.token_hex(16),
            caller.principal_id,
            call_id,
            Status("submitted", (), time()),
        )
        self._running[task.id] = task
        return task

    def end(self, task: Task, caller: Caller) -> None:
        """Keep an ended task for its owner, within the limits."""
        self._running.pop(task.id, None)
        if is_anonymous(caller.key_digest):
            return
        self._kept[task.id] = task
        self._bytes += task.size
        own = [each for each in self._kept.values() if each.owner == task.owner]
        for each in own[: len(own) - MAX_KEPT_OF_ONE if len(own) > MAX_KEPT_OF_ONE else 0]:
            self._drop(each)
        while self._kept and self._is_full():
            self._drop(next(iter(self._kept.values())))

    def find(self, task_id: object, caller: Caller) -> Task | None:
        """Return a task of the caller; None if it does not exist, or is another principal's."""
        if not isinstance(task_id, str) or is_anonymous(caller.key_digest):
            return None
        task = self._running.get(task_id) or self._kept.get(task_id)
        if task is None or task.owner != caller.principal_id:
            return None
        return task if not task.ended_at or monotonic() - task.ended_at < KEPT_SECONDS else None

    def of(self, caller: Caller) -> list[Task]:
        """Return all tasks of the caller, the newest first."""
        every = [*self._kept.values(), *self._running.values()]
        return [each for each in reversed(every) if self.find(each.id, caller) is each]

    def _is_full(self) -> bool:
        oldest = next(iter(self._kept.values()))
        expired = monotonic() - oldest.ended_at > KEPT_SECONDS
        return expired or len(self._kept) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES

    def _drop(self, task: Task) -> None:
        del self._kept[task.id]
        self._bytes -= task.size
