"""Conversion of task requests between protocol families. Responses have the caller's form."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.errors import UpstreamInvalidError, UpstreamRefusedError
from toolbus_executor.mcp_messages import task_formats
from toolbus_executor.mcp_messages.task_formats import (
    CANCEL,
    ENDED,
    GET,
    INPUT_REQUIRED,
    RESULT,
    UPDATE,
    Task,
)
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.suspended_calls import INVALID_PARAMS, answers_in

POLL_SECONDS = 0.5
LONGEST_POLL = 5.0
_SHORTEST_POLL = 0.02
_NOTHING = b'{"resultType":"complete"}'

Once = Callable[[CallAdmitted, float, Caller], Awaitable[bytes]]
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Bridge:
    """A call whose caller and server use different protocol families.

    `once` sends one request to the server.
    """

    call: CallAdmitted
    seconds: float
    caller: Caller
    once: Once

    async def _ask(self, method: str, params: bytes | None = None) -> bytes:
        """Send a request of this method about the call's task.

        The default params are the call's arguments.
        """
        request = about(self.call, method, self.call.arguments if params is None else params)
        return await self.once(request, self.seconds, self.caller)

    async def _itself(self, **changed: Any) -> bytes:
        """Send the caller's request, with these changes."""
        request = self.call.model_copy(update=changed) if changed else self.call
        return await self.once(request, self.seconds, self.caller)


class OverModern(Bridge):
    """A call of a session-based caller to a stateless server.

    The call must declare the tasks extension.
    """

    async def answer(self) -> bytes:
        """Return the response in the caller's form. The result of a tool call is not changed."""
        method = self.call.method
        if method == TOOLS_CALL:
            return await self._itself()
        if method == RESULT:
            return await self._outcome()
        if method == CANCEL:
            await self._cancel()
        return task_formats.old(await self._get())

    async def _cancel(self) -> None:
        status = task_formats.read(await self._get()).status
        if status in ENDED:
            raise over(status)
        await self._itself()

    async def _outcome(self) -> bytes:
        """Wait until the task ends or requests input. Return its result or its requests."""
        answered = await self._pass_answers()
        async with asyncio.timeout(self.seconds) as limit:
            while True:
                task = task_formats.read(await self._get())
                if not self.caller.task:  # not for tasks/result: its client can retry
                    works_on(limit, self.caller)
                if task.status in ENDED:
                    return outcome(task)
                requests = task.inputRequests or {}
                unanswered = {name: each for name, each in requests.items() if name not in answered}
                if task.status == INPUT_REQUIRED and unanswered:
                    pending = {"resultType": INPUT_REQUIRED, "inputRequests": unanswered}
                    return msgspec.json.encode(pending)
                await asyncio.sleep(pause(task))

    async def _pass_answers(self) -> frozenset[str]:
        """Send the caller's answers to the server. Return the names of the answered requests."""
        _, answers = answers_in(self.call.extra)
        if not answers:
            return frozenset()
        params = {**_members(self.call.arguments), "inputResponses": answers}
        await self._ask(UPDATE, msgspec.json.encode(params))
        return frozenset(answers)

    async def _get(self) -> bytes:
        return await self._ask(GET)


class OverLegacy(Bridge):
    """A call of a stateless caller to a session-based server."""

    async def answer(self) -> bytes:
        """Return the response in the caller's form.

        `TaskInputRequests` processes input requests.
        """
        method = self.call.method
        if method == TOOLS_CALL:
            return await self._begin()
        if method == CANCEL:
            return await self._cancel()
        if method == GET:
            return await self._get()
        return await self._itself()

    async def _begin(self) -> bytes:
        raw = await self._itself(extra=as_task(self.call.extra))
        task = task_formats.nested(raw)
        return raw if task is None else task_formats.new(task, "task")

    async def _get(self) -> bytes:
        raw = await self._itself()
        status = task_formats.read(raw).status
        if status in ("completed", "failed"):
            return task_formats.new(raw, **await self._ended())
        return task_formats.new(
            raw, status=status if status in (INPUT_REQUIRED, "cancelled") else "working"
        )

    async def _ended(self) -> dict[str, Any]:
        """Return the members of an ended task.

        In MCP 2026-07-28, a task is `completed` even if its tool reported an error.
        """
        try:
            result = await self._ask(RESULT)
        except UpstreamRefusedError as error:
            return {"status": "failed", "error": as_error(error)}
        return {"status": "completed", "result": task_formats.whole(result)}

    async def _cancel(self) -> bytes:
        """Cancel the task. In the caller's family, cancelling an ended task is no error."""
        try:
            await self._itself()
        except UpstreamRefusedError as error:
            if error.data.get("upstream_code") != INVALID_PARAMS:
                raise
            await self._ask(GET)
        return _NOTHING


def outcome(task: Task) -> bytes:
    """Return the result of an ended task of a stateless server. Raises the task's error."""
    if task.status == "completed" and task.result:
        return bytes(task.result)
    error = task.error
    if isinstance(error, dict) and isinstance(error.get("code"), int):
        data = {"upstream_data": error["data"]} if "data" in error else {}
        message = str(error.get("message", "no message"))
        raise UpstreamRefusedError(message, upstream_code=error["code"], **data)
    if task.status == "cancelled":
        raise over(task.status)
    raise UpstreamInvalidError(
        f"The upstream's task is {task.status}, but has neither a result nor an error; fix the "
        "server."
    )


def over(status: str) -> UpstreamRefusedError:
    """Return the error for a request that needs a running task."""
    return UpstreamRefusedError(f"The task is {status} already.", upstream_code=INVALID_PARAMS)


def as_error(error: UpstreamRefusedError) -> dict[str, Any]:
    """Return an error of a server in JSON-RPC form."""
    found: dict[str, Any] = {"code": error.data["upstream_code"], "message": error.reason}
    if "upstream_data" in error.data:
        found["data"] = error.data["upstream_data"]
    return found


def about(call: CallAdmitted, method: str, params: bytes) -> CallAdmitted:
    """Return a request about a call's task, with this method and these params."""
    return call.model_copy(update={"method": method, "arguments": params, "extra": ""})


def as_task(extra: str) -> str:
    """Return the extra members of a call, with a request to execute the call as a task."""
    return msgspec.json.encode({**(_members(extra) if extra else {}), "task": {}}).decode()


def works_on(limit: asyncio.Timeout, caller: Caller) -> None:
    """Extend the time limit of a call, because the server has just returned a task's status."""
    caller.works()
    left, until = caller.left(), limit.when()
    if until is not None and left > 0 and not limit.expired():
        limit.reschedule(max(until, asyncio.get_running_loop().time() + left))


def pause(task: Task) -> float:
    """Return the pause before the next poll of a task in seconds."""
    seconds = POLL_SECONDS if task.poll_ms is None else task.poll_ms / 1000
    return min(max(seconds, _SHORTEST_POLL), LONGEST_POLL)
