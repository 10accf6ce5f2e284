"""Calls about tasks. They are forwarded, converted between families, or executed as a task."""

import asyncio
from collections.abc import Awaitable, Collection
from contextlib import nullcontext, suppress
from typing import Any

import msgspec

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, CatalogEntry, ProtocolFamily
from toolbus_common.errors import ToolbusError, UpstreamInvalidError, UpstreamRefusedError
from toolbus_executor.mcp_messages import task_formats
from toolbus_executor.mcp_messages.client_capabilities import TASKS, takes_tasks, with_tasks
from toolbus_executor.mcp_messages.task_formats import CANCEL, ENDED, GET, INPUT_REQUIRED, RESULT
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
from toolbus_executor.upstreams.suspended_calls import answers_in

CANCEL_SECONDS = 2.0
MISSING_CAPABILITY = -32021
_STATE = "toolbus-task:"  # prefix of the state that contains a task id
_INPUT_REQUIRED = msgspec.Raw(b'"input_required"')
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class TaskSupport:
    """Handler of one server's calls that can involve tasks."""

    def __init__(self) -> None:
        self._required: frozenset[str] = frozenset()
        self._able: frozenset[str] = frozenset()

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store which tools can be executed as tasks, and which tools only as tasks."""
        support = {tool.name: _support(tool.definition) for tool in tools}
        self._required = frozenset(name for name, value in support.items() if value == "required")
        self._able = frozenset(
            name for name, value in support.items() if value in ("optional", "required")
        )

    def requires(self, tool: str) -> bool:
        """Return whether a tool runs only as a task."""
        return tool in self._required

    async def request(
        self, call: CallAdmitted, seconds: float, caller: Caller, once: Once, *, modern: bool
    ) -> bytes:
        """Return the response to a call. A response about a task has the caller's form.

        `modern` is set if the server is stateless. `once` sends one request to the server.
        """
        if modern is not (call.family is ProtocolFamily.MODERN) and self._crosses(
            call, modern=modern
        ):
            return await _checked(_bridge(call, seconds, caller, once, modern=modern).answer())
        if modern and call.family is ProtocolFamily.LEGACY and _resumed(call.extra):
            return await _checked(run_modern(call, seconds, caller, once))
        if self._drives(call):
            return await _checked(run(call, seconds, caller, once))
        try:
            return await once(call, seconds, caller)
        except UpstreamRefusedError as error:
            if not insists(error, call):
                raise
        return await _checked(run_modern(call, seconds, caller, once))

    def _crosses(self, call: CallAdmitted, *, modern: bool) -> bool:
        """Return whether a call concerns a task. Caller and server must differ in family."""
        if call.method != TOOLS_CALL:
            return call.method.startswith("tasks/")
        if modern:
            return '"task"' in call.extra and "task" in _members(call.extra)
        return call.tool in self._able and takes_tasks(call.capabilities)

    def _drives(self, call: CallAdmitted) -> bool:
        """Return whether this process must execute a call as a task and wait for its result."""
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


async def _checked(work: Awaitable[bytes]) -> bytes:
    """Return the result of `work`. Raises `UpstreamInvalidError` for a malformed task."""
    try:
        return await work
    except msgspec.DecodeError as error:
        raise UpstreamInvalidError("The upstream's task is malformed; fix the server.") from error


async def run(call: CallAdmitted, seconds: float, caller: Caller, once: Once) -> bytes:
    """Execute a call as a task of a session-based server, and return the tool's result."""
    request = call.model_copy(update={"extra": as_task(call.extra)})
    created = task_formats.nested(await once(request, seconds, caller))
    task = task_formats.read(created or b"{}")
    if not task.taskId:
        raise UpstreamInvalidError(
            "The upstream created no task, although its tool requires one; fix the server."
        )
    named = msgspec.json.encode({"taskId": task.taskId})
    try:
        with sent_before():
            async with asyncio.timeout(seconds) as limit:
                while task.status not in ENDED and task.status != INPUT_REQUIRED:
                    await asyncio.sleep(pause(task))
                    task = task_formats.read(await once(about(call, GET, named), seconds, caller))
                    works_on(limit, caller)
                return await once(about(call, RESULT, named), seconds, caller)
    except (TimeoutError, asyncio.CancelledError):
        with suppress(ToolbusError, TimeoutError):
            await once(about(call, CANCEL, named), CANCEL_SECONDS, caller)
        raise


async def run_modern(call: CallAdmitted, seconds: float, caller: Caller, once: Once) -> bytes:
    """Execute a call that can become a task of a stateless server, and return its result.

    If the task needs input, the result requests the input. The next call contains the answers and
    the task's id.
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
    except (TimeoutError, asyncio.CancelledError, UpstreamInvalidError):
        with suppress(ToolbusError, TimeoutError):
            await once(about(able, CANCEL, named), CANCEL_SECONDS, caller)
        raise


def _resumed(extra: str) -> str:
    """Return the id of the task that a call continues; empty for a new call."""
    if _STATE not in extra:
        return ""
    state = answers_in(extra)[0]
    return state.removeprefix(_STATE) if state.startswith(_STATE) else ""


def _with_state(raw: bytes, task: str) -> bytes:
    """Return the result; if it requests input, with the task's id in `requestState`."""
    members = _members(raw)
    if members.get("resultType") != _INPUT_REQUIRED:
        return raw
    return msgspec.json.encode({**members, "requestState": _STATE + task})


def insists(error: UpstreamRefusedError, call: CallAdmitted) -> bool:
    """Return whether a modern server requires task support that the caller does not have.

    Always false for a modern caller: it receives the error, and can declare the support itself.
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
    """Return the task support that a tool declares."""
    execution = definition.get("execution")
    return execution.get("taskSupport") if isinstance(execution, dict) else None
