"""Tasks in both wire forms: the extension of 2026-07-28 and the experiment of 2025-11-25."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .hub import Hub
from .wire import INVALID_PARAMS, PREFIX, Json, RefusedError

TTL_MS = 60_000
POLL_MS = 100
TERMINAL = frozenset({"completed", "failed", "cancelled"})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(eq=False)
class Task:
    """One job that outlives its request."""

    hub: Hub
    id: str = field(default_factory=lambda: f"task-{secrets.token_hex(8)}")
    status: str = "working"
    created: str = field(default_factory=_now)
    updated: str = field(default_factory=_now)
    result: Json | None = None
    error: Json | None = None
    asked: Json = field(default_factory=dict)
    answers: Json = field(default_factory=dict)
    job: asyncio.Task[None] | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def created_result(self) -> Json:
        """What a call answers that became this task (2026-07-28)."""
        return {"resultType": "task", **self._fields}

    @property
    def detailed(self) -> Json:
        """What `tasks/get` answers (2026-07-28)."""
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
        """The task as 2025-11-25 writes it."""
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
        """The `_meta` that ties a message to this task (2025-11-25)."""
        return {PREFIX + "related-task": {"taskId": self.id}}

    @property
    def pending(self) -> Json:
        """Questions nobody has answered."""
        return {key: request for key, request in self.asked.items() if key not in self.answers}

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
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
        """Park until every question has its answer."""
        named = {f"{self.id}-{key}": request for key, request in requests.items()}
        self.asked |= named
        await self.move("input_required")
        async with self.changed:
            await self.changed.wait_for(lambda: not self.pending)
        await self.move("working")
        return {key: self.answers[f"{self.id}-{key}"] for key in requests}

    async def answer(self, answers: Json) -> None:
        """Take answers; unknown keys are not looked at."""
        self.answers |= {key: value for key, value in answers.items() if key in self.pending}
        async with self.changed:
            self.changed.notify_all()

    async def move(self, status: str) -> None:
        """Take a new status and tell of it; an end is final."""
        if self.ended:
            return
        self.status, self.updated = status, _now()
        self.hub.task_moved(self.id, self.detailed, self.nested)
        async with self.changed:
            self.changed.notify_all()

    async def run(self, work: Callable[[], Awaitable[Json]]) -> None:
        """Work to an end."""
        try:
            self.result = await work()
            await self.move("completed")
        except RefusedError as refusal:
            self.error = refusal.body
            await self.move("failed")

    async def cancel(self) -> None:
        """Stop working; nothing happens to a task that ended."""
        await self.move("cancelled")
        if self.job is not None and not self.job.done():
            self.job.cancel()
            with suppress(asyncio.CancelledError):
                await self.job


class Tasks:
    """Every task since the start."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._tasks: dict[str, Task] = {}

    def begin(self, work: Callable[[Task], Awaitable[Json]]) -> Task:
        """A new task, at work."""
        task = Task(self._hub)
        self._tasks[task.id] = task
        task.job = asyncio.create_task(task.run(lambda: work(task)))
        return task

    def find(self, params: Json) -> Task:
        """The task a request names."""
        found = self._tasks.get(str(params.get("taskId")))
        if found is None:
            raise RefusedError(INVALID_PARAMS, "There is no such task.")
        return found

    def all(self) -> list[Task]:
        """Every task, oldest first."""
        return list(self._tasks.values())
