"""Tools that only run as tasks, for callers that take no tasks: begun, waited for, fetched."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any

import msgspec

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, Era, Offered
from toolbus_common.errors import ToolbusError, UpstreamFaultError, UpstreamRefusedError
from toolbus_executor.caller import Caller
from toolbus_executor.capabilities import TASKS, with_tasks

POLL_SECONDS = 0.5
LONGEST_POLL = 5.0
CANCEL_SECONDS = 2.0
MISSING_CAPABILITY = -32021
_GOES_ON = frozenset({"working", "submitted"})


class _Finished(msgspec.Struct):
    """The result of a task that has one."""

    result: msgspec.Raw


_finished = msgspec.json.Decoder(_Finished).decode

Once = Callable[[CallAdmitted, float, Caller], Awaitable[bytes]]


class Tasking:
    """Drives the tasks of one server."""

    def __init__(self) -> None:
        self._required: frozenset[str] = frozenset()

    def learn(self, tools: Collection[Offered]) -> None:
        """Remember the tools that only run as tasks."""
        self._required = frozenset(tool.name for tool in tools if requires_task(tool.definition))

    def drives(self, call: CallAdmitted) -> bool:
        """Whether a call must be made a task here."""
        return (
            bool(self._required)
            and call.method == TOOLS_CALL
            and call.tool in self._required
            and '"task"' not in call.extra
        )

    async def ask(self, call: CallAdmitted, seconds: float, caller: Caller, once: Once) -> bytes:
        """The result of a call, by a task if its tool will have it so."""
        if self.drives(call):
            return await self.run(call, seconds, caller, once)
        try:
            return await once(call, seconds, caller)
        except UpstreamRefusedError as error:
            if not insists(error, call):
                raise
        return await run_modern(call, seconds, caller, once)

    async def run(self, call: CallAdmitted, seconds: float, caller: Caller, once: Once) -> bytes:
        """The result of a task, as if the tool had answered by itself."""
        asked = call.model_copy(update={"extra": '{"task":{}}'})
        told = msgspec.json.decode(await once(asked, seconds, caller))
        task = told.get("task")
        if not isinstance(task, dict) or not isinstance(task.get("taskId"), str):
            raise UpstreamFaultError("The upstream began no task, though its tool runs as one.")
        about = msgspec.json.encode({"taskId": task["taskId"]})
        try:
            async with asyncio.timeout(seconds):
                while task.get("status") in _GOES_ON:
                    await asyncio.sleep(_pause(task))
                    task = msgspec.json.decode(
                        await once(_about(call, "tasks/get", about), seconds, caller)
                    )
                return await once(_about(call, "tasks/result", about), seconds, caller)
        except (TimeoutError, asyncio.CancelledError):
            with suppress(ToolbusError, TimeoutError):
                await once(_about(call, "tasks/cancel", about), CANCEL_SECONDS, caller)
            raise


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
        and call.era is Era.LEGACY
    )


async def run_modern(call: CallAdmitted, seconds: float, caller: Caller, once: Once) -> bytes:
    """The same for a stateless server: declared on the caller's behalf, asked after, fetched."""
    able = call.model_copy(update={"capabilities": with_tasks(call.capabilities)})
    raw = await once(able, seconds, caller)
    task = msgspec.json.decode(raw)
    if task.get("resultType") != "task" or not isinstance(task.get("taskId"), str):
        return raw
    about = msgspec.json.encode({"taskId": task["taskId"]})
    try:
        async with asyncio.timeout(seconds):
            while task.get("status") in _GOES_ON:
                await asyncio.sleep(_pause(task))
                raw = await once(_about(able, "tasks/get", about), seconds, caller)
                task = msgspec.json.decode(raw)
            if task.get("status") == "completed":
                return bytes(_finished(raw).result)
            raise _ended(task)
    except (TimeoutError, asyncio.CancelledError, UpstreamFaultError):
        with suppress(ToolbusError, TimeoutError):
            await once(_about(able, "tasks/cancel", about), CANCEL_SECONDS, caller)
        raise


def _ended(task: dict[str, Any]) -> ToolbusError:
    """Why a task has no result."""
    error = task.get("error")
    if isinstance(error, dict) and isinstance(error.get("code"), int):
        data = {"upstream_data": error["data"]} if "data" in error else {}
        told = str(error.get("message", "no message"))
        return UpstreamRefusedError(told, upstream_code=error["code"], **data)
    status = task.get("status")
    return UpstreamFaultError(f"The upstream's task is {status}, which Toolbus cannot pass on.")


def requires_task(definition: dict[str, Any]) -> bool:
    """Whether a tool says it only runs as a task."""
    execution = definition.get("execution")
    return isinstance(execution, dict) and execution.get("taskSupport") == "required"


def _about(call: CallAdmitted, method: str, params: bytes) -> CallAdmitted:
    return call.model_copy(update={"method": method, "arguments": params, "extra": ""})


def _pause(task: dict[str, Any]) -> float:
    told = task.get("pollIntervalMs", task.get("pollInterval"))
    seconds = told / 1000 if isinstance(told, int | float) else POLL_SECONDS
    return min(max(seconds, 0.02), LONGEST_POLL)
