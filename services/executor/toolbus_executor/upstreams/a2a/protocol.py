"""The two versions of the A2A protocol that are supported, as JSON-RPC.

They differ in the names of methods, in the form of parts, and in how a response states its kind.
Source: https://a2a-protocol.org/latest/specification/ (1.0), and /v0.3.0/specification/.
"""

from dataclasses import dataclass
from typing import Any

from toolbus_executor.resilience.failure_log import GarbageError

Json = dict[str, Any]
TASK, MESSAGE, STATUS, ARTIFACT = "task", "message", "status", "artifact"
WORKING = frozenset({"submitted", "working"})
_STATE = "TASK_STATE_"
_WRAPPED = {"task": TASK, "message": MESSAGE, "statusUpdate": STATUS, "artifactUpdate": ARTIFACT}
_KINDS = {
    "task": TASK, "message": MESSAGE, "status-update": STATUS, "artifact-update": ARTIFACT,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """A file of a message: base64 text, or a URL. The other of the two is empty."""

    base64: str = ""
    url: str = ""
    name: str = ""
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Protocol:
    """The names and forms of one version."""

    version: str
    send: str
    stream: str
    get: str
    cancel: str

    def text(self, text: str) -> Json:
        """Return a part with text."""
        return {"text": text} if self is CURRENT else {"kind": "text", "text": text}

    def data(self, data: Any) -> Json:
        """Return a part with structured data."""
        return {"data": data} if self is CURRENT else {"kind": "data", "data": data}

    def file(self, file: File) -> Json:
        """Return a part with a file."""
        if self is CURRENT:
            content = {"raw": file.base64} if file.base64 else {"url": file.url}
            named = {"filename": file.name, "mediaType": file.media_type}
            return content | {name: text for name, text in named.items() if text}
        content = {"bytes": file.base64} if file.base64 else {"uri": file.url}
        named = {"name": file.name, "mimeType": file.media_type}
        given = content | {name: text for name, text in named.items() if text}
        return {"kind": "file", "file": given}

    def message(self, message_id: str, parts: list[Json], task: str, context: str) -> Json:
        """Return a message of a user."""
        message: Json = {"messageId": message_id, "role": "ROLE_USER", "parts": parts}
        if self is not CURRENT:
            message |= {"kind": "message", "role": "user"}
        ids = {"taskId": task, "contextId": context}
        return message | {name: each for name, each in ids.items() if each}

    @property
    def without_waiting(self) -> Json:
        """The configuration of a request whose task is polled."""
        return {"returnImmediately": True} if self is CURRENT else {"blocking": False}


CURRENT = Protocol("1.0", "SendMessage", "SendStreamingMessage", "GetTask", "CancelTask")
BEFORE = Protocol("0.3", "message/send", "message/stream", "tasks/get", "tasks/cancel")


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
    return state.removeprefix(_STATE).lower().replace("_", "-")[:40]


def parts_of(holder: Any) -> list[Json]:
    """Return the parts of a message or an artifact; empty if there are none."""
    parts = holder.get("parts") if isinstance(holder, dict) else None
    return [each for each in parts if isinstance(each, dict)] if isinstance(parts, list) else []


def file_in(part: Json) -> File | None:
    """Return the file in a part of either version; None if it has none."""
    inner = part.get("file")
    if isinstance(inner, dict):
        words = (inner.get(name) for name in ("bytes", "uri", "name", "mimeType"))
    elif "raw" in part or "url" in part:
        words = (part.get(name) for name in ("raw", "url", "filename", "mediaType"))
    else:
        return None
    return File(*(each if isinstance(each, str) else "" for each in words))
