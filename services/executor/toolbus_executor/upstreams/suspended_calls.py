"""Calls that are suspended until their client answers. Each has an unguessable state.

A session-based server sends a request during a call. The client receives `input_required` and
continues with another call, which any replica can receive. The state in that call contains the id
of the process that holds the suspended call.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from toolbus_common.contracts import ERROR, CallAdmitted
from toolbus_common.errors import OverloadedError, UpstreamRefusedError
from toolbus_executor.mcp_messages.request_builder import refusal
from toolbus_executor.upstreams.call_channel import Caller

SUSPENSION_SECONDS = 600.0
MAX_SUSPENDED = 1000  # suspended calls of one server
INVALID_PARAMS = -32602
CANCELLED = -32800
_PREFIX = "suspended"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class SuspendedCall:
    """A suspended call. Its server has sent requests."""

    binding: str
    task: asyncio.Task[bytes]
    caller: Caller
    call_id: str = ""  # id of the call whose turn suspended it
    timer: asyncio.TimerHandle | None = field(default=None)

    def end(self) -> None:
        """Cancel the call. The server is notified, and its requests are answered as cancelled."""
        if self.timer is not None:
            self.timer.cancel()
        self.task.cancel()
        self.task.add_done_callback(self._ended)

    def settle(self) -> None:
        """Answer the requests that the client did not answer before the call ended."""
        questions, self.caller.questions = self.caller.questions, {}
        for question in questions.values():
            question.answer(unanswered(question.method))

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        if not task.cancelled():
            task.exception()
        self.settle()


class SuspendedCalls:
    """The suspended calls of one server in this process."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._suspended: dict[str, SuspendedCall] = {}
        self._calls: dict[str, str] = {}  # the number of a suspended call, by `call_id`

    def __len__(self) -> int:
        return len(self._suspended)

    def put(self, suspended: SuspendedCall, call_id: str) -> bytes:
        """Suspend a call, and return the `input_required` result that ends its turn.

        The call is cancelled after `SUSPENSION_SECONDS`.

        Raises:
            OverloadedError: too many calls are suspended.

        """
        if len(self._suspended) >= MAX_SUSPENDED:
            suspended.end()
            raise OverloadedError(
                f"{MAX_SUSPENDED} calls already wait for input, which is the limit; retry later."
            )
        number = secrets.token_urlsafe(24)
        loop = asyncio.get_running_loop()
        suspended.timer = loop.call_later(SUSPENSION_SECONDS, self._expire, number)
        self._suspended[number], self._calls[call_id] = suspended, number
        suspended.call_id, suspended.caller.shown = call_id, True
        requests = {
            key: {"method": question.method, "params": msgspec.Raw(question.params)}
            for key, question in suspended.caller.questions.items()
        }
        state = f"{_PREFIX}.{self._instance}.{number}"
        return _encode(
            {"resultType": "input_required", "inputRequests": requests, "requestState": state}
        )

    def take(self, state: str, call: CallAdmitted) -> SuspendedCall:
        """Return the suspended call of a state, and remove it from the suspended calls.

        Raises:
            UpstreamRefusedError: the state is unknown or expired, or belongs to another principal.

        """
        number = state.rpartition(".")[2]
        suspended = self._suspended.get(number)
        if suspended is None or not secrets.compare_digest(suspended.binding, binding_of(call)):
            raise expired()
        self._forget(number)
        if suspended.timer is not None:
            suspended.timer.cancel()
        suspended.caller.shown = False
        return suspended

    def cancel(self, call_id: str) -> None:
        """Cancel the call that a turn suspended, because its client does not continue it."""
        number = self._calls.get(call_id)
        if number is not None:
            self._expire(number)

    def close(self) -> None:
        """Cancel all suspended calls."""
        for suspended in self._suspended.values():
            suspended.end()
        self._suspended.clear()
        self._calls.clear()

    def _expire(self, number: str) -> None:
        suspended = self._forget(number)
        if suspended is not None:
            suspended.end()

    def _forget(self, number: str) -> SuspendedCall | None:
        suspended = self._suspended.pop(number, None)
        if suspended is not None:
            self._calls.pop(suspended.call_id, None)
        return suspended


def binding_of(call: CallAdmitted) -> str:
    """Return the binding of a call: the fields that must be equal in all its turns."""
    digest = hashlib.sha256(call.arguments).hexdigest()
    return f"{call.principal_id}\n{call.customer}\n{call.key}\n{call.method}\n{call.tool}\n{digest}"


def owner_of(state: str) -> str:
    """Return the process that holds the suspended call of a state; empty for any other state."""
    parts = state.split(".")
    return parts[1] if len(parts) == 3 and parts[0] == _PREFIX and parts[1].isalnum() else ""  # noqa: PLR2004


def answers_in(extra: str) -> tuple[str, Mapping[str, msgspec.Raw] | None]:
    """Return the state and the answers in a call; empty without a state, None without answers."""
    if not extra:
        return "", None
    members = _members(extra)
    state = msgspec.json.decode(members["requestState"]) if "requestState" in members else ""
    answers = members.get("inputResponses")
    raw = bytes(answers).lstrip() if answers is not None else b""
    return str(state), _members(raw) if raw[:1] == b"{" else None


def answer(caller: Caller, answers: Mapping[str, msgspec.Raw]) -> None:
    """Send the client's answers to the server. Requests without a valid answer stay open."""
    for key, question in list(caller.questions.items()):
        raw = bytes(answers.get(key, b"")).strip()
        if raw[:1] == b"{":
            del caller.questions[key]
            question.answer(_member(raw))


def _member(raw: bytes) -> bytes:
    """Return the member of the response to the server: `error` if the client sent an error."""
    if ERROR.encode() in raw:
        found = error_in(msgspec.Raw(raw))
        if found is not None:
            return b'"error":' + _encode(found)
    return b'"result":' + raw


def error_in(answer: msgspec.Raw) -> Any:
    """Return the JSON-RPC error in a client's answer; None if the answer is no error."""
    decoded = msgspec.json.decode(answer)
    meta = decoded.get("_meta") if isinstance(decoded, dict) else None
    found = meta.get(ERROR) if isinstance(meta, dict) else None
    return found if isinstance(found, dict) else None


def expired() -> UpstreamRefusedError:
    """Return the error for a state that belongs to no suspended call."""
    return UpstreamRefusedError(
        "Invalid or expired requestState. Restart the request.",
        upstream_code=INVALID_PARAMS,
        sent=False,
    )


def unanswered(method: str) -> bytes:
    """Return the response member for a request whose client disconnected or did not answer."""
    if method == "elicitation/create":
        return b'"result":{"action":"cancel"}'
    return refusal(CANCELLED, "The client disconnected, or did not answer in time.")
