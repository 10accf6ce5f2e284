"""Tasks in both wire forms: the extension of 2026-07-28 and the experiment of 2025-11-25."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .notifications import Notifier
from .wire import INVALID_PARAMS, PREFIX, Json, RefusedError

TTL_MS = 60_000
POLL_MS = 100
TERMINAL = frozenset({"completed", "failed", "cancelled"})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(eq=False)
class Task:
    """One task, which outlives its request."""

    notifier: Notifier
    id: str = field(default_factory=lambda: f"task-{secrets.token_hex(8)}")
    status: str = "working"
    created: str = field(default_factory=_now)
    updated: str = field(default_factory=_now)
    result: Json | None = None
    error: Json | None = None
    requests: Json = field(default_factory=dict)
    answers: Json = field(default_factory=dict)
    job: asyncio.Task[None] | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def created_result(self) -> Json:
        """The result of a call that became this task (2026-07-28)."""
        return {"resultType": "task", **self._fields}

    @property
    def detailed(self) -> Json:
        """The result of `tasks/get` (2026-07-28)."""
        result = self._fields
        if self.status == "input_required":
            result["inputRequests"] = self.pending
        if self.result is not None:
            result["result"] = {"resultType": "complete", **self.result}
        if self.error is not None:
            result["error"] = self.error
        return result

    @property
    def nested(self) -> Json:
        """The task in the form of 2025-11-25."""
        return {
            "taskId": self.id,
            "status": "failed" if (self.result or {}).get("isError") else self.status,
            "createdAt": self.created,
            "lastUpdatedAt": self.updated,
            "ttl": TTL_MS,
            "pollInterval": POLL_MS,
        }

    @property
    def related(self) -> Json:
        """The `_meta` that links a message to this task (2025-11-25)."""
        return {PREFIX + "related-task": {"taskId": self.id}}

    @property
    def pending(self) -> Json:
        """The requests without an answer."""
        return {key: request for key, request in self.requests.items() if key not in self.answers}

    @property
    def ended(self) -> bool:
        """Whether the task is in a final state."""
        return self.status in TERMINAL

    @property
    def _fields(self) -> Json:
        return {
            "taskId": self.id,
            "status": self.status,
            "createdAt": self.created,
            "lastUpdatedAt": self.updated,
            "ttlMs": TTL_MS,
            "pollIntervalMs": POLL_MS,
        }

    async def ask(self, requests: Json) -> Json:
        """Wait until every request has its answer."""
        named = {f"{self.id}-{key}": request for key, request in requests.items()}
        self.requests |= named
        await self.move("input_required")
        async with self.changed:
            await self.changed.wait_for(lambda: not self.pending)
        await self.move("working")
        return {key: self.answers[f"{self.id}-{key}"] for key in requests}

    async def answer(self, answers: Json) -> None:
        """Store answers; unknown keys are ignored."""
        self.answers |= {key: value for key, value in answers.items() if key in self.pending}
        async with self.changed:
            self.changed.notify_all()

    async def move(self, status: str) -> None:
        """Change the status and notify; a final status does not change."""
        if self.ended:
            return
        self.status, self.updated = status, _now()
        self.notifier.task_moved(self.id, self.detailed, self.nested)
        async with self.changed:
            self.changed.notify_all()

    async def run(self, work: Callable[[], Awaitable[Json]]) -> None:
        """Run the work to its end."""
        try:
            self.result = await work()
            await self.move("completed")
        except RefusedError as refusal:
            self.error = refusal.body
            await self.move("failed")

    async def cancel(self) -> None:
        """Cancel the work; an ended task does not change."""
        await self.move("cancelled")
        if self.job is not None and not self.job.done():
            self.job.cancel()
            with suppress(asyncio.CancelledError):
                await self.job


class Tasks:
    """All tasks since the start."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._tasks: dict[str, Task] = {}

    def begin(self, work: Callable[[Task], Awaitable[Json]]) -> Task:
        """Start a new task."""
        task = Task(self._notifier)
        self._tasks[task.id] = task
        task.job = asyncio.create_task(task.run(lambda: work(task)))
        return task

    def find(self, params: Json) -> Task:
        """Return the task of a request."""
        found = self._tasks.get(str(params.get("taskId")))
        if found is None:
            raise RefusedError(INVALID_PARAMS, "There is no such task.")
        return found

    def all(self) -> list[Task]:
        """Return all tasks, the oldest first."""
        return list(self._tasks.values())
