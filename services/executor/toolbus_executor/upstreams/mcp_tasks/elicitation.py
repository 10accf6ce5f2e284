"""Input requests of session-based servers for tasks of stateless callers.

Such a server sends its requests while a client waits for the task's result. A stateless caller only
polls its task. Therefore this process waits for the result in place of the caller, and adds the
requests to the response of every poll. The keys of the requests contain the id of this process,
because it must receive the answers.
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
from toolbus_executor.mcp_messages.task_formats import GET, INPUT_REQUIRED, RESULT, UPDATE, read
from toolbus_executor.upstreams.base import Upstream
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp_tasks.bridge import about
from toolbus_executor.upstreams.suspended_calls import INVALID_PARAMS, SUSPENSION_SECONDS, answer

MAX_WAITING = 1000  # tasks of one server
REQUEST_SECONDS = 1.0  # time for a server to repeat its requests on a new connection
GATHER_SECONDS = 0.02
_PREFIX = "task"
_PARTS = 4
_NOTHING = b'{"resultType":"complete"}'

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Answered(msgspec.Struct):
    """The members of `tasks/update`."""

    taskId: str = ""  # noqa: N815 - MCP's member name
    inputResponses: dict[str, msgspec.Raw] = {}  # noqa: N815


_decoded = msgspec.json.Decoder(_Answered).decode


class _DiscardedReply:
    """The context of a call that discards every message."""

    async def send(self, message: ReplyMessage) -> None:
        """Discard the message."""


@dataclass(slots=True)
class _Waiting:
    """A task whose result is awaited. `caller` stores the requests that were received."""

    key: str
    result: asyncio.Task[bytes]
    caller: Caller


class TaskInputRequests:
    """The tasks of one server for which this process waits."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._waiting: dict[tuple[str, ...], _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def request(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, caller: Caller
    ) -> bytes:
        """Return a task with its input requests, or forward the caller's answers."""
        if call.method == UPDATE:
            return await self._update(upstream, call, seconds, caller)
        raw = await upstream.call(call, seconds, caller)
        if read(raw).status != INPUT_REQUIRED or not kinds_of(call.capabilities):
            return raw
        waiting = self._waiting.get(_name(call)) or self._wait(upstream, call)
        await _gather(waiting, min(seconds, REQUEST_SECONDS))
        return _shown(raw, waiting)

    def close(self) -> None:
        """Stop waiting for all tasks."""
        for waiting in list(self._waiting.values()):
            waiting.result.cancel()

    async def _update(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, caller: Caller
    ) -> bytes:
        waiting = self._waiting.get(_name(call))
        if waiting is None:  # no request is pending; only check that the task exists
            await upstream.call(about(call, GET, _named(call)), seconds, caller)
            return _NOTHING
        answers = _answered(call).inputResponses
        prefix = f"{waiting.key}."
        found = {
            key.removeprefix(prefix): raw for key, raw in answers.items() if key.startswith(prefix)
        }
        answer(waiting.caller, found)
        return _NOTHING

    def _wait(self, upstream: Upstream, call: CallAdmitted) -> _Waiting:
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(
                f"{MAX_WAITING} tasks already wait for input, which is the limit; retry later."
            )
        quiet = about(call, RESULT, _named(call)).model_copy(
            update={"progress": False, "log_level": ""}
        )
        caller = Caller(quiet, _DiscardedReply())
        result = asyncio.create_task(upstream.call(quiet, SUSPENSION_SECONDS, caller))
        key = f"{_PREFIX}.{self._instance}.{secrets.token_urlsafe(12)}"
        waiting = self._waiting[_name(call)] = _Waiting(key, result, caller)
        result.add_done_callback(self._forgetting(_name(call)))
        return waiting

    def _forgetting(self, name: tuple[str, ...]) -> Callable[[asyncio.Task[bytes]], None]:
        def forget(ended: asyncio.Task[bytes]) -> None:
            del self._waiting[name]
            if not ended.cancelled():
                ended.exception()  # the next poll returns the outcome

        return forget


def concerns(call: CallAdmitted) -> bool:
    """Return whether a stateless caller polls or updates a task."""
    return call.family is ProtocolFamily.MODERN and call.method in (GET, UPDATE)


def holder_of(call: CallAdmitted) -> str:
    """Return the process that waits for the answers in a call; empty if there is none."""
    if call.method != UPDATE:
        return ""
    with suppress(UpstreamRefusedError):
        for key in _answered(call).inputResponses:
            parts = key.split(".")
            if len(parts) == _PARTS and parts[0] == _PREFIX and parts[1].isalnum():
                return parts[1]
    return ""


async def _gather(waiting: _Waiting, seconds: float) -> None:
    """Wait a short time for the server's first request, and for further requests."""
    if waiting.caller.questions:
        return
    requested: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting.caller.next_request = requested
    await asyncio.wait(
        (waiting.result, requested), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    waiting.caller.next_request = None
    if requested.done():
        await asyncio.wait((waiting.result,), timeout=GATHER_SECONDS)


def _shown(raw: bytes, waiting: _Waiting) -> bytes:
    """Return the task with its input requests. Without requests, the task's status is `working`."""
    questions = {
        f"{waiting.key}.{key}": {"method": each.method, "params": msgspec.Raw(each.params)}
        for key, each in waiting.caller.questions.items()
    }
    members: dict[str, Any] = dict(_members(raw))
    if questions:
        members["inputRequests"] = questions
    else:
        members["status"] = "working"
    return msgspec.json.encode(members)


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
    """Return the key of a call's task: the task's owner and its id."""
    return call.principal_id, call.customer, call.key, call.session, _answered(call).taskId
