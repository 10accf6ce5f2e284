"""What a server with a handshake asks for a task of a stateless caller: heard, shown, answered.

Such a server asks while somebody waits for the task's result, and this caller only looks at its
task now and then. So whoever waits stays here, under the task's name, and the questions are shown
in every look. Their keys name this process, to which the answers must come.
"""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common.contracts import CallAdmitted, ProtocolFamily, ReplyMessage
from toolbus_common.errors import OverloadedError, UpstreamRefusedError
from toolbus_executor.mcp_messages.client_capabilities import kinds_of
from toolbus_executor.mcp_messages.task_formats import ASKS, GET, RESULT, UPDATE, read
from toolbus_executor.upstreams.base import Upstream
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp_tasks.bridge import about
from toolbus_executor.upstreams.suspended_calls import INVALID_PARAMS, PARK_SECONDS, answer

MOST_KEPT = 1000  # of one server
HEAR_SECONDS = 1.0  # what a server may take to repeat its questions to who now waits
GATHER_SECONDS = 0.02
_PREFIX = "task"
_PARTS = 4
_NOTHING = b'{"resultType":"complete"}'

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Answered(msgspec.Struct):
    """The members of tasks/update."""

    taskId: str = ""  # noqa: N815 - the wire's own name
    inputResponses: dict[str, msgspec.Raw] = {}  # noqa: N815


_decoded = msgspec.json.Decoder(_Answered).decode


class _Nobody:
    """The way back of who waits for a result nobody hears."""

    address = ""

    async def send(self, frame: ReplyMessage) -> None:
        """Say nothing."""


@dataclass(slots=True)
class _Waiting:
    """A task's result being waited for, and what the server asked meanwhile."""

    key: str
    result: asyncio.Task[bytes]
    caller: Caller


class TaskQuestions:
    """The tasks of one server that ask something, in this process."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._kept: dict[tuple[str, ...], _Waiting] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def ask(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, caller: Caller
    ) -> bytes:
        """A look at a task, with its questions, or the answers to them."""
        if call.method == UPDATE:
            return await self._update(upstream, call, seconds, caller)
        raw = await upstream.call(call, seconds, caller)
        if read(raw).status != ASKS or not kinds_of(call.capabilities):
            return raw
        waiting = self._kept.get(_name(call)) or self._wait(upstream, call)
        await _hear(waiting, min(seconds, HEAR_SECONDS))
        return _shown(raw, waiting)

    def close(self) -> None:
        """Wait for nothing any more."""
        for waiting in list(self._kept.values()):
            waiting.result.cancel()

    async def _update(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, caller: Caller
    ) -> bytes:
        waiting = self._kept.get(_name(call))
        if waiting is None:  # nothing is asked here; that there is such a task the server says
            await upstream.call(about(call, GET, _named(call)), seconds, caller)
            return _NOTHING
        brought = _answered(call).inputResponses
        own = f"{waiting.key}."
        found = {k.removeprefix(own): raw for k, raw in brought.items() if k.startswith(own)}
        answer(waiting.caller, found)
        return _NOTHING

    def _wait(self, upstream: Upstream, call: CallAdmitted) -> _Waiting:
        if len(self._kept) >= MOST_KEPT:
            raise OverloadedError(f"{MOST_KEPT} tasks wait for answers already; retry later.")
        quiet = about(call, RESULT, _named(call)).model_copy(
            update={"progress": False, "log_level": ""}
        )
        caller = Caller(quiet, _Nobody())
        result = asyncio.create_task(upstream.call(quiet, PARK_SECONDS, caller))
        key = f"{_PREFIX}.{self._instance}.{secrets.token_urlsafe(12)}"
        waiting = self._kept[_name(call)] = _Waiting(key, result, caller)
        result.add_done_callback(self._forgetting(_name(call)))
        return waiting

    def _forgetting(self, name: tuple[str, ...]) -> Callable[[asyncio.Task[bytes]], None]:
        def forget(ended: asyncio.Task[bytes]) -> None:
            del self._kept[name]
            if not ended.cancelled():
                ended.exception()  # the next look at the task tells how it ended

        return forget


def concerns(call: CallAdmitted) -> bool:
    """Whether a call looks at a task that may ask its stateless caller something."""
    return call.family is ProtocolFamily.MODERN and call.method in (GET, UPDATE)


def keeper_of(call: CallAdmitted) -> str:
    """The process that keeps the questions a call answers; empty when it answers none."""
    if call.method != UPDATE:
        return ""
    with suppress(UpstreamRefusedError):
        for key in _answered(call).inputResponses:
            parts = key.split(".")
            if len(parts) == _PARTS and parts[0] == _PREFIX and parts[1].isalnum():
                return parts[1]
    return ""


async def _hear(waiting: _Waiting, seconds: float) -> None:
    """Give the server time to ask, and to ask several things."""
    if waiting.caller.questions:
        return
    asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting.caller.asked = asked
    await asyncio.wait(
        (waiting.result, asked), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    waiting.caller.asked = None
    if asked.done():
        await asyncio.wait((waiting.result,), timeout=GATHER_SECONDS)


def _shown(raw: bytes, waiting: _Waiting) -> bytes:
    """A task with its questions; while there are none its caller has only to wait."""
    questions = {
        f"{waiting.key}.{key}": {"method": each.method, "params": msgspec.Raw(each.params)}
        for key, each in waiting.caller.questions.items()
    }
    told: dict[str, Any] = dict(_members(raw))
    if questions:
        told["inputRequests"] = questions
    else:
        told["status"] = "working"
    return msgspec.json.encode(told)


def _answered(call: CallAdmitted) -> _Answered:
    try:
        return _decoded(call.arguments)
    except msgspec.DecodeError as error:
        raise UpstreamRefusedError(
            "inputResponses must be an object.", upstream_code=INVALID_PARAMS, sent=False
        ) from error


def _named(call: CallAdmitted) -> bytes:
    return msgspec.json.encode({"taskId": _answered(call).taskId})


def _name(call: CallAdmitted) -> tuple[str, ...]:
    """Whose task it is, and which."""
    return call.principal_id, call.customer, call.key, call.session, _answered(call).taskId
