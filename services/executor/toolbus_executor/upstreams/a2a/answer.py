"""The agent's answer to one call: a message, or a task with its artifacts."""

from dataclasses import dataclass, field
from typing import Any

from toolbus_common.a2a.protocol import Json, parts_of
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.upstreams.a2a.events import (
    ARTIFACT,
    MESSAGE,
    STATUS,
    WORKING,
    event_of,
    state_of,
)

LARGEST_RESULT = 5 * 1024 * 1024  # bytes; a result must fit into a message on the bus
MAX_ARTIFACTS = 500
MAX_PARTS = 2_000


@dataclass(slots=True)
class Artifact:
    """An artifact of a task. `size` is the length of the events that it consists of."""

    parts: list[Json]
    size: int


@dataclass(slots=True)
class Answer:
    """The agent's answer so far. `state` is empty until the first event arrives."""

    task: str = ""
    context: str = ""
    state: str = ""
    message: list[Json] = field(default_factory=list)  # parts of the last message
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the agent has stopped: the task has ended, or the agent waits for the caller."""
        return bool(self.state) and self.state not in WORKING

    def take(self, result: Any, size: int) -> str:
        """Apply an event of `size` bytes. Return its kind.

        Raises:
            UpstreamInvalidError: the event is malformed, concerns another task, or makes the
                answer too large.

        """
        kind, event = event_of(result)
        if kind == MESSAGE:
            self._note(event.get("taskId") or self.task, event.get("contextId"))
            self.message, self.state = parts_of(event), "completed"
        elif kind == STATUS:
            self._note(event.get("taskId"), event.get("contextId"))
            self._status(event.get("status"))
        elif kind == ARTIFACT:
            self._note(event.get("taskId"), event.get("contextId"))
            self._artifact(event.get("artifact"), size, appended=event.get("append") is True)
            self.state = self.state or "working"
        else:
            self.take_task(event, size)
        self._limit(size)
        return kind

    def take_task(self, task: Any, size: int) -> None:
        """Apply a complete task. Its artifacts, if any, replace all others. Raises like `take`."""
        if not isinstance(task, dict):
            raise GarbageError("The agent's task is not an object; fix the agent.")
        self._note(task.get("id"), task.get("contextId"))
        self._status(task.get("status"))
        artifacts = task.get("artifacts") or []
        if not isinstance(artifacts, list):
            raise GarbageError("The agent's artifacts are not a list; fix the agent.")
        if artifacts:
            self.artifacts = {}
            for each in artifacts:
                self._artifact(each, size // len(artifacts), appended=False)
        self._limit(size)

    def _note(self, task: Any, context: Any) -> None:
        """Record the ids of an event. All events of a call concern one task."""
        task, context = task or "", context or ""
        if not isinstance(task, str) or not isinstance(context, str):
            raise GarbageError("The agent's taskId or contextId is not text; fix the agent.")
        if self.task and task != self.task:
            raise GarbageError("The agent answered about another task; fix the agent.")
        self.task, self.context = task, context or self.context

    def _status(self, status: Any) -> None:
        self.state = state_of(status)
        self.message = parts_of(status.get("message"))

    def _artifact(self, artifact: Any, size: int, *, appended: bool) -> None:
        if not isinstance(artifact, dict):
            raise GarbageError("The agent's artifact is not an object; fix the agent.")
        name = str(artifact.get("artifactId"))[:200]
        before = self.artifacts.get(name) if appended else None
        if before is None:
            self.artifacts[name] = Artifact(parts_of(artifact), size)
        else:
            before.parts += parts_of(artifact)
            before.size += size

    def _limit(self, size: int) -> None:
        artifacts = self.artifacts.values()
        total = sum(each.size for each in artifacts)
        parts = sum(len(each.parts) for each in artifacts) + len(self.message)
        if max(total, size) > LARGEST_RESULT or parts > MAX_PARTS or len(artifacts) > MAX_ARTIFACTS:
            raise UpstreamInvalidError(
                f"The agent's answer is too large: at most {LARGEST_RESULT} bytes, {MAX_PARTS} "
                f"parts and {MAX_ARTIFACTS} artifacts. Request less."
            )
