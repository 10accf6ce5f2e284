"""Tasks of 2026-07-28, as an extension of the SDK's client."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import mcp_types as types
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.session import ClientSession
from pydantic import ConfigDict, Field

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
OVER = ("completed", "failed", "cancelled")


class Task(types.Result):
    """A task in the form in which the server reports it."""

    model_config = ConfigDict(extra="allow")

    task_id: str = Field(alias="taskId")
    status: str
    status_message: str = Field(alias="statusMessage")
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class CreatedTask(Task):
    """The response to a call that became a task."""

    result_type: Literal["task"] = Field(alias="resultType")


class TaskId(types.RequestParams):
    """The id of a task."""

    task_id: str = Field(serialization_alias="taskId")


class Update(TaskId):
    """The caller's input for a task."""

    input_responses: dict[str, Any] = Field(serialization_alias="inputResponses")


class Get(types.Request[TaskId, Literal["tasks/get"]]):
    """A request for a task's state."""

    method: Literal["tasks/get"] = "tasks/get"


class Tell(types.Request[Update, Literal["tasks/update"]]):
    """A request that sends input to a task."""

    method: Literal["tasks/update"] = "tasks/update"


class Tasks(ClientExtension):
    """A client that supports tasks. Its calls return when the task has ended."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, answer: Answer | None = None) -> None:
        self.created: list[CreatedTask] = []
        self.arrived = asyncio.Event()
        self._answer = answer

    def settings(self) -> dict[str, Any]:
        """Return no settings."""
        return {}

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """Return the result types of this extension."""
        return (ResultClaim(result_type="task", model=CreatedTask, resolve=self._resolve),)

    async def _resolve(self, created: CreatedTask, context: ClaimContext) -> types.CallToolResult:
        self.created.append(created)
        self.arrived.set()
        while (task := await self._state(created, context.session)).status not in OVER:
            request = (task.model_extra or {}).get("inputRequests")
            if request and self._answer is not None:
                params = Update(
                    task_id=created.task_id, input_responses=await self._answer(request)
                )
                await context.session.send_request(Tell(params=params), types.Result)
            await asyncio.sleep(0.05)
        if task.status == "completed":
            return types.CallToolResult.model_validate(task.result)
        text = types.TextContent(type="text", text=f"{task.status}: {task.status_message}")
        return types.CallToolResult(content=[text], is_error=True)

    async def _state(self, created: CreatedTask, session: ClientSession) -> Task:
        return await session.send_request(Get(params=TaskId(task_id=created.task_id)), Task)
