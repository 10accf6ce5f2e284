"""Programs that call tools: each of their calls is a call like any other, judged and recorded."""

import asyncio
from dataclasses import dataclass, field
from time import time
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from toolbus_codemode.sandbox.program import (
    Ended,
    Failure,
    Function,
    Limits,
    Namespace,
    Program,
    ToolCall,
    ToolOutcome,
)
from toolbus_codemode.sandbox.protocol import IDEMPOTENCY
from toolbus_codemode.sandbox.sandbox import Sandbox
from toolbus_codemode.shelf import Shelf, Tool
from toolbus_codemode.stubs import ordered, required
from toolbus_codemode.values import outcome_of
from toolbus_common.contracts import Answered, CallAdmitted, CallCancelled, CallRequested, Era
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.idempotency import checked_key
from toolbus_common.room import Room
from toolbus_common.trace import child_of

ENGINES = ("starlark", "python")
MARGIN = 1.0  # seconds kept of the caller's time, to tell how a program ended


@dataclass(slots=True)
class Programs:
    """Runs programs in the name of whoever sent them."""

    room: Room
    sandbox: Sandbox
    seconds: float
    calls: int
    _named: WeakKeyDictionary[Shelf, tuple[Namespace, ...]] = field(
        default_factory=WeakKeyDictionary
    )

    async def run(self, call: CallAdmitted, shelf: Shelf, arguments: dict[str, Any]) -> Ended:
        """Run one program. Raises `InvalidError` for arguments that hold none."""
        source, engine = arguments.get("code"), arguments.get("language", "starlark")
        if not isinstance(source, str):
            raise InvalidError("code must be given: the text of a program.")
        if engine not in ENGINES:
            raise InvalidError(f"language must be one of {', '.join(ENGINES)}.")
        deadline = min(self.seconds, call.deadline - time() - MARGIN)
        if deadline <= 0:
            raise InvalidError("The call's deadline leaves no time for a program.")
        limits = Limits(deadline=deadline, calls=self.calls)
        program = Program(source, engine, self._namespaces(shelf), limits)
        return await self.sandbox.run(program, _Inner(self.room, call).make)

    def _namespaces(self, shelf: Shelf) -> tuple[Namespace, ...]:
        """What programs may name; worked out once for a shelf of maybe thousands of tools."""
        found = self._named.get(shelf)
        if found is None:
            found = self._named[shelf] = _namespaces(shelf)
        return found


@dataclass(slots=True)
class _Inner:
    """The calls of one program."""

    room: Room
    outer: CallAdmitted
    _under_way: set[str] = field(default_factory=set)

    async def make(self, wanted: ToolCall) -> ToolOutcome:
        """Make one call; how it failed is a value too, in words its caller may read."""
        arguments = {**wanted.arguments}
        try:
            key = checked_key(arguments.pop(IDEMPOTENCY, None))
        except InvalidError as error:
            return ToolOutcome(failure=Failure(error.code, error.reason))
        call_id = self.room.calls.new_call_id()
        call = CallRequested(
            call_id=call_id,
            reply_to=self.room.calls.address(call_id),
            server=wanted.server,
            tool=wanted.tool,
            proof=self.outer.proof,
            era=Era.MODERN,
            deadline=self.outer.deadline,
            traceparent=child_of(self.outer.traceparent),
            parent_id=self.outer.call_id,
            narrower=self.outer.narrower,
            idempotency_key=key,
            arguments=msgspec.json.encode(arguments),
        )
        try:
            ending = await self.room.calls.ask(call)
        except ToolbusError as error:
            return ToolOutcome(failure=Failure(error.code, error.reason))
        except asyncio.CancelledError:  # the program ended first: nobody waits any more
            self.room.spawn(self._cancel(call_id))
            raise
        if not isinstance(ending, Answered):
            sentence = "This tool asks its caller something, which a program cannot answer."
            return ToolOutcome(failure=Failure("input_required", sentence))
        return outcome_of(ending.body)

    async def _cancel(self, call_id: str) -> None:
        cancelled = CallCancelled(call_id=call_id)
        await self.room.bus.publish(cancelled.subject, cancelled.encode())


def _namespaces(shelf: Shelf) -> tuple[Namespace, ...]:
    return tuple(_namespace(space, list(tools.values())) for space, tools in shelf.spaces.items())


def _namespace(space: str, tools: list[Tool]) -> Namespace:
    return Namespace(space, tools[0].server, tuple(map(_function, tools)))


def _function(tool: Tool) -> Function:
    needed = required(tool.schema)
    parameters = tuple(ordered(tool.schema))
    return Function(tool.function, tool.name, parameters, len(needed.intersection(parameters)))
