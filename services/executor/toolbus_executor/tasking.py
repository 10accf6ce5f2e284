"""Tools that only run as tasks, for callers that take no tasks: begun, waited for, fetched."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any

import msgspec

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, Offered
from toolbus_common.errors import ToolbusError, UpstreamFaultError
from toolbus_executor.caller import Caller

POLL_SECONDS = 0.5
LONGEST_POLL = 5.0
CANCEL_SECONDS = 2.0
_GOES_ON = frozenset({"working", "submitted"})

Once = Callable[[CallAdmitted, float, Caller], Awaitable[bytes]]


class Tasking:
    """Drives the tasks of one server of 2025-11-25."""

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


def requires_task(definition: dict[str, Any]) -> bool:
    """Whether a tool says it only runs as a task."""
    execution = definition.get("execution")
    return isinstance(execution, dict) and execution.get("taskSupport") == "required"


def _about(call: CallAdmitted, method: str, params: bytes) -> CallAdmitted:
    return call.model_copy(update={"method": method, "arguments": params, "extra": ""})


def _pause(task: dict[str, Any]) -> float:
    told = task.get("pollInterval")
    seconds = told / 1000 if isinstance(told, int | float) else POLL_SECONDS
    return min(max(seconds, 0.02), LONGEST_POLL)
