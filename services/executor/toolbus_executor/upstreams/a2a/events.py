"""Events in an agent's responses, of both protocol versions."""

from typing import Any

from toolbus_common.a2a.protocol import Json, plain_state
from toolbus_executor.resilience.failure_log import GarbageError

TASK, MESSAGE, STATUS, ARTIFACT = "task", "message", "status", "artifact"
WORKING = frozenset({"submitted", "working"})
LONGEST_STATE = 40
_WRAPPED = {"task": TASK, "message": MESSAGE, "statusUpdate": STATUS, "artifactUpdate": ARTIFACT}
_KINDS = {
    "task": TASK, "message": MESSAGE, "status-update": STATUS, "artifact-update": ARTIFACT,
}  # fmt: skip


def event_of(result: Any) -> tuple[str, Json]:
    """Return the kind of a response and its content, of either version. Raises `GarbageError`."""
    if isinstance(result, dict):
        kind = _KINDS.get(str(result.get("kind")))
        if kind is not None:
            return kind, result
        for name, wrapped in _WRAPPED.items():
            if isinstance(result.get(name), dict):
                return wrapped, result[name]
    raise GarbageError("The agent's response is neither a task nor a message; fix the agent.")


def state_of(status: Any) -> str:
    """Return the state in a task's status, in the words of version 0.3. Raises `GarbageError`."""
    state = status.get("state") if isinstance(status, dict) else None
    if not isinstance(state, str) or not state:
        raise GarbageError("The agent's task has no state; fix the agent.")
    return plain_state(state)[:LONGEST_STATE]
