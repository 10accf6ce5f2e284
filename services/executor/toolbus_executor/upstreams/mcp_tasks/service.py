"""Tasks of one server: passed through, put into the form of another family, or driven to their end.

A tool that only runs as a task is begun, waited for and fetched for callers that take no tasks.
"""

import asyncio
from collections.abc import Awaitable, Collection
from contextlib import nullcontext, suppress
from typing import Any

import msgspec

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, CatalogEntry, ProtocolFamily
from toolbus_common.errors import ToolbusError, UpstreamFaultError, UpstreamRefusedError
from toolbus_executor.mcp_messages import task_formats
from toolbus_executor.mcp_messages.client_capabilities import TASKS, takes_tasks, with_tasks
from toolbus_executor.mcp_messages.task_formats import ASKS, CANCEL, ENDED, GET, RESULT
from toolbus_executor.upstreams.base import sent_before
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp_tasks.bridge import (
    Once,
    OverLegacy,
    OverModern,
    about,
    as_task,
    pause,
    works_on,
)
from toolbus_executor.upstreams.suspended_calls import brought

CANCEL_SECONDS = 2.0
MISSING_CAPABILITY = -32021
_STATE = "toolbus-task:"  # and its name: the state of a round whose task was begun here
_ASKS = msgspec.Raw(b'"input_required"')
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Tasking:
    """Knows which tools run as tasks, and what to make of a call that is about one."""

    def __init__(self) -> None:
        self._required: frozenset[str] = frozenset()
        self._able: frozenset[str] = frozenset()

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Remember the tools that may run as tasks, and those that only do."""
        support = {tool.name: _support(tool.definition) for tool in tools}
        self._required = frozenset(name for name, told in support.items() if told == "required")
        self._able = frozenset(n for n, told in support.items() if told in ("optional", "required"))

    async def ask(
        self, call: CallAdmitted, seconds: float, caller: Caller, once: Once, *, modern: bool
    ) -> bytes:
        """The answer to a call, in its caller's form where it is about a task.

        `modern` says whether the server is; `once` asks it one thing.
        """
        if modern is not (call.family is ProtocolFamily.MODERN) and self._crosses(
            call, modern=modern
        ):
            return await _sound(_bridge(call, seconds, caller, once, modern=modern).answer())
        if modern and call.family is ProtocolFamily.LEGACY and _resumed(call.extra):
            return await _sound(run_modern(call, seconds, caller, once))
        if self._drives(call):
            return await _sound(run(call, seconds, caller, once))
        try:
            return await once(call, seconds, caller)
        except UpstreamRefusedError as error:
            if not insists(error, call):
                raise
        return await _sound(run_modern(call, seconds, caller, once))

    def _crosses(self, call: CallAdmitted, *, modern: bool) -> bool:
        """Whether a call between the families is about a task."""
        if call.method != TOOLS_CALL:
            return call.method.startswith("tasks/")
        if modern:
            return '"task"' in call.extra and "task" in _members(call.extra)
        return call.tool in self._able and takes_tasks(call.capabilities)

    def _drives(self, call: CallAdmitted) -> bool:
        """Whether a call must be made a task here."""
        return (
            bool(self._required)
            and call.method == TOOLS_CALL
            and call.tool in self._required
            and '"task"' not in call.extra
        )


def _bridge(
    call: CallAdmitted, seconds: float, caller: Caller, once: Once, *, modern: bool
) -> OverModern | OverLegacy:
    if not modern:
        return OverLegacy(call, seconds, caller, once)
    able = call.model_copy(update={"capabilities": with_tasks(call.capabilities)})
    return OverModern(able, seconds, caller, once)


async def _sound(work: Awaitable[bytes]) -> bytes:
    """What some work comes to, unless the task it is about cannot be read."""
    try:
        return await work
    except msgspec.DecodeError as error:
        raise UpstreamFaultError("The upstream's task is malformed.") from error


async def run(call: CallAdmitted, seconds: float, caller: Caller, once: Once) -> bytes:
    """The result of a task of a server with a handshake, as if the tool had answered by itself."""
    asked = call.model_copy(update={"extra": as_task(call.extra)})
    begun = task_formats.nested(await once(asked, seconds, caller))
    task = task_formats.read(begun or b"{}")
    if not task.taskId:
        raise UpstreamFaultError("The upstream began no task, though its tool runs as one.")
    named = msgspec.json.encode({"taskId": task.taskId})
    try:
        with sent_before():
            async with asyncio.timeout(seconds) as limit:
                while task.status not in ENDED and task.status != ASKS:
                    await asyncio.sleep(pause(task))
                    task = task_formats.read(await once(about(call, GET, named), seconds, caller))
                    works_on(limit, caller)
                return await once(about(call, RESULT, named), seconds, caller)
    except (TimeoutError, asyncio.CancelledError):
        with suppress(ToolbusError, TimeoutError):
            await once(about(call, CANCEL, named), CANCEL_SECONDS, caller)
        raise


async def run_modern(call: CallAdmitted, seconds: float, caller: Caller, once: Once) -> bytes:
    """The same for a stateless server: declared on the caller's behalf, asked after, fetched.

    What the task asks ends the round; the next one brings the answers, and names the task.
    """
    able = call.model_copy(update={"capabilities": with_tasks(call.capabilities)})
    task = resumed = _resumed(call.extra)
    if not resumed:
        raw = await once(able, seconds, caller)
        if msgspec.json.decode(raw).get("resultType") != "task":
            return raw
        task = task_formats.read(raw).taskId
    named = msgspec.json.encode({"taskId": task})
    brought_along = call.extra if resumed else ""
    waiting = about(able, RESULT, named).model_copy(update={"extra": brought_along})
    try:
        with nullcontext() if resumed else sent_before():
            return _with_state(await OverModern(waiting, seconds, caller, once).answer(), task)
    except (TimeoutError, asyncio.CancelledError, UpstreamFaultError):
        with suppress(ToolbusError, TimeoutError):
            await once(about(able, CANCEL, named), CANCEL_SECONDS, caller)
        raise


def _resumed(extra: str) -> str:
    """The task a round goes on with; empty for a call's first."""
    if _STATE not in extra:
        return ""
    state = brought(extra)[0]
    return state.removeprefix(_STATE) if state.startswith(_STATE) else ""


def _with_state(raw: bytes, task: str) -> bytes:
    """A result; one that asks says which task goes on with the answers."""
    told = _members(raw)
    if told.get("resultType") != _ASKS:
        return raw
    return msgspec.json.encode({**told, "requestState": _STATE + task})


def insists(error: UpstreamRefusedError, call: CallAdmitted) -> bool:
    """Whether a modern server wants a task where its caller knows of none.

    A modern caller is refused instead, as the extension has it: it can declare that it takes them.
    """
    data = error.data.get("upstream_data")
    wanted = data.get("requiredCapabilities") if isinstance(data, dict) else None
    extensions = wanted.get("extensions") if isinstance(wanted, dict) else None
    return (
        error.data.get("upstream_code") == MISSING_CAPABILITY
        and isinstance(extensions, dict)
        and TASKS in extensions
        and call.method == TOOLS_CALL
        and call.family is ProtocolFamily.LEGACY
    )


def _support(definition: dict[str, Any]) -> Any:
    """What a tool says of running as a task."""
    execution = definition.get("execution")
    return execution.get("taskSupport") if isinstance(execution, dict) else None
