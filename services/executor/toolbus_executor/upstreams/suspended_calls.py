"""Calls that wait for their caller's answers: kept by their owner, found by a state nobody guesses.

A handshake-family server asks in the middle of a call. The caller is told `input_required` and
comes back with another call, which may reach any replica; the state it brings names the owner.
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

PARK_SECONDS = 600.0
MOST_PARKED = 1000  # of one server
INVALID_PARAMS = -32602
CANCELLED = -32800
_PREFIX = "park"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Parked:
    """One call under way whose server asked something."""

    binding: str
    task: asyncio.Task[bytes]
    caller: Caller
    call_id: str = ""  # of the round that parked it
    timer: asyncio.TimerHandle | None = field(default=None)

    def end(self) -> None:
        """Give it up: the server is told that the call is cancelled, and so are its questions."""
        if self.timer is not None:
            self.timer.cancel()
        self.task.cancel()
        self.task.add_done_callback(self._ended)

    def settle(self) -> None:
        """Answer the questions that the client left unanswered when the call ended."""
        questions, self.caller.questions = self.caller.questions, {}
        for question in questions.values():
            question.answer(unanswered(question.method))

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        if not task.cancelled():
            task.exception()
        self.settle()


class Park:
    """The parked calls of one server in this process."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._parked: dict[str, Parked] = {}
        self._calls: dict[str, str] = {}  # the round that parked it -> its number

    def __len__(self) -> int:
        return len(self._parked)

    def put(self, parked: Parked, call_id: str) -> bytes:
        """Keep a call for a while; the `input_required` result that ends its round."""
        if len(self._parked) >= MOST_PARKED:
            parked.end()
            raise OverloadedError(f"{MOST_PARKED} calls wait for answers already; retry later.")
        number = secrets.token_urlsafe(24)
        loop = asyncio.get_running_loop()
        parked.timer = loop.call_later(PARK_SECONDS, self._expire, number)
        self._parked[number], self._calls[call_id] = parked, number
        parked.call_id, parked.caller.shown = call_id, True
        asked = {
            key: {"method": question.method, "params": msgspec.Raw(question.params)}
            for key, question in parked.caller.questions.items()
        }
        state = f"{_PREFIX}.{self._instance}.{number}"
        return _encode(
            {"resultType": "input_required", "inputRequests": asked, "requestState": state}
        )

    def take(self, state: str, call: CallAdmitted) -> Parked:
        """The call a state belongs to. Raises `UpstreamRefusedError` for any other state."""
        number = state.rpartition(".")[2]
        parked = self._parked.get(number)
        if parked is None or not secrets.compare_digest(parked.binding, binding_of(call)):
            raise expired()
        self._forget(number)
        if parked.timer is not None:
            parked.timer.cancel()
        parked.caller.shown = False
        return parked

    def cancel(self, call_id: str) -> None:
        """Give up the call this round parked: its caller will not come back."""
        number = self._calls.get(call_id)
        if number is not None:
            self._expire(number)

    def close(self) -> None:
        """Give up everything."""
        for parked in self._parked.values():
            parked.end()
        self._parked.clear()
        self._calls.clear()

    def _expire(self, number: str) -> None:
        parked = self._forget(number)
        if parked is not None:
            parked.end()

    def _forget(self, number: str) -> Parked | None:
        parked = self._parked.pop(number, None)
        if parked is not None:
            self._calls.pop(parked.call_id, None)
        return parked


def binding_of(call: CallAdmitted) -> str:
    """What must be the same in every round of a call."""
    digest = hashlib.sha256(call.arguments).hexdigest()
    return f"{call.principal_id}\n{call.customer}\n{call.key}\n{call.method}\n{call.tool}\n{digest}"


def owner_of(state: str) -> str:
    """The process that keeps a parked call; empty for a state that is none of ours."""
    parts = state.split(".")
    return parts[1] if len(parts) == 3 and parts[0] == _PREFIX and parts[1].isalnum() else ""  # noqa: PLR2004


def brought(extra: str) -> tuple[str, Mapping[str, msgspec.Raw] | None]:
    """The state and the answers a call brings; None when it brings no answers."""
    if not extra:
        return "", None
    told = _members(extra)
    state = msgspec.json.decode(told["requestState"]) if "requestState" in told else ""
    answers = told.get("inputResponses")
    raw = bytes(answers).lstrip() if answers is not None else b""
    return str(state), _members(raw) if raw[:1] == b"{" else None


def answer(caller: Caller, answers: Mapping[str, msgspec.Raw]) -> None:
    """Pass answers on; whatever is missing or no answer stays asked."""
    for key, question in list(caller.questions.items()):
        raw = bytes(answers.get(key, b"")).strip()
        if raw[:1] == b"{":
            del caller.questions[key]
            question.answer(_member(raw))


def _member(raw: bytes) -> bytes:
    """Return the member of a server's answer: an error where the client answered with one."""
    if ERROR.encode() in raw:
        found = error_in(msgspec.Raw(raw))
        if found is not None:
            return b'"error":' + _encode(found)
    return b'"result":' + raw


def error_in(answer: msgspec.Raw) -> Any:
    """Return the JSON-RPC error that a client answered with; None where it answered otherwise."""
    told = msgspec.json.decode(answer)
    meta = told.get("_meta") if isinstance(told, dict) else None
    found = meta.get(ERROR) if isinstance(meta, dict) else None
    return found if isinstance(found, dict) else None


def expired() -> UpstreamRefusedError:
    """The refusal of a state nobody keeps a call for."""
    return UpstreamRefusedError(
        "Invalid or expired requestState", upstream_code=INVALID_PARAMS, sent=False
    )


def unanswered(method: str) -> bytes:
    """Return the member that answers a question whose client left or did not answer in time."""
    if method == "elicitation/create":
        return b'"result":{"action":"cancel"}'
    return refusal(CANCELLED, "The client left, or did not answer in time.")
