"""The two supported versions of the A2A protocol over JSON-RPC.

They differ in the names of methods, in the form of parts, and in how a response states its kind.
Sources: https://a2a-protocol.org/v1.0.0/specification/ and https://a2a-protocol.org/v0.3.0/specification/.
"""

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
JSON_RPC = "JSONRPC"  # the name of this transport in agent cards
_STATE = "TASK_STATE_"
_NOTHING: Any = object()


@dataclass(frozen=True, slots=True)
class File:
    """A file of a message, as base64 text or as a URL; the other field is empty."""

    base64: str = ""
    url: str = ""
    name: str = ""
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message or an artifact: text, data or a file."""

    text: str | None = None
    data: Any = _NOTHING
    file: File | None = None


@dataclass(frozen=True, slots=True)
class Protocol:
    """The names and forms of one version."""

    version: str
    send: str
    stream: str
    get: str
    cancel: str
    listed: str
    subscribe: str
    card: str
    push: str  # prefix of the methods for push notifications

    def part(self, part: Part) -> Json:
        """Return a part."""
        if part.file is not None:
            return self._file(part.file)
        made = {"text": part.text} if part.text is not None else {"data": part.data}
        if self is CURRENT:
            return made
        return {"kind": "text" if part.text is not None else "data", **made}

    def message(self, message_id: str, parts: list[Json], task: str, context: str) -> Json:
        """Return a message of a user."""
        ids = {"taskId": task, "contextId": context}
        message = self._message(message_id, parts, "user")
        return message | {name: each for name, each in ids.items() if each}

    def reply(self, message_id: str, parts: list[Json]) -> Json:
        """Return a message of an agent."""
        return self._message(message_id, parts, "agent")

    def state(self, state: str) -> str:
        """Return this version's name of a state; `state` is its name in version 0.3."""
        return _STATE + state.upper().replace("-", "_") if self is CURRENT else state

    @property
    def without_waiting(self) -> Json:
        """The configuration of a request whose task is polled."""
        return {"returnImmediately": True} if self is CURRENT else {"blocking": False}

    def waits(self, configuration: Json) -> bool:
        """Return whether the sender of a message waits for the end of its task."""
        if self is CURRENT:
            return configuration.get("returnImmediately") is not True
        return configuration.get("blocking") is not False

    def _message(self, message_id: str, parts: list[Json], role: str) -> Json:
        if self is CURRENT:
            return {"messageId": message_id, "role": f"ROLE_{role.upper()}", "parts": parts}
        return {"kind": "message", "messageId": message_id, "role": role, "parts": parts}

    def _file(self, file: File) -> Json:
        if self is CURRENT:
            content = {"raw": file.base64} if not file.url else {"url": file.url}
            named = {"filename": file.name, "mediaType": file.media_type}
            return content | {name: text for name, text in named.items() if text}
        content = {"bytes": file.base64} if not file.url else {"uri": file.url}
        named = {"name": file.name, "mimeType": file.media_type}
        given = content | {name: text for name, text in named.items() if text}
        return {"kind": "file", "file": given}


CURRENT = Protocol(
    "1.0", "SendMessage", "SendStreamingMessage", "GetTask", "CancelTask", "ListTasks",
    "SubscribeToTask", "GetExtendedAgentCard", "TaskPushNotificationConfig",
)  # fmt: skip
BEFORE = Protocol(
    "0.3", "message/send", "message/stream", "tasks/get", "tasks/cancel", "tasks/list",
    "tasks/resubscribe", "agent/getAuthenticatedExtendedCard", "tasks/pushNotificationConfig",
)  # fmt: skip


def plain_state(state: str) -> str:
    """Return the name in version 0.3 of a state of any version."""
    return state.removeprefix(_STATE).lower().replace("_", "-")


def parts_of(holder: Any) -> list[Json]:
    """Return the parts of a message or an artifact; empty if there are none."""
    parts = holder.get("parts") if isinstance(holder, dict) else None
    return [each for each in parts if isinstance(each, dict)] if isinstance(parts, list) else []


def file_in(part: Json) -> File | None:
    """Return the file in a part of any version; None if it has none."""
    inner = part.get("file")
    if isinstance(inner, dict):
        words = (inner.get(name) for name in ("bytes", "uri", "name", "mimeType"))
    elif "raw" in part or "url" in part:
        words = (part.get(name) for name in ("raw", "url", "filename", "mediaType"))
    else:
        return None
    return File(*(each if isinstance(each, str) else "" for each in words))
