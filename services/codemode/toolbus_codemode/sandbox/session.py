"""Service side of one run: it validates every message of the child and makes the calls."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from toolbus_codemode.sandbox.program import (
    Failure,
    Function,
    Limits,
    Namespace,
    Program,
    ToolCall,
    ToolOutcome,
)
from toolbus_codemode.sandbox.protocol import (
    HEADER,
    Call,
    Calls,
    Done,
    Outcome,
    Outcomes,
    ProgramFailed,
    Start,
    Tool,
    child_decoder,
    with_length,
)
from toolbus_codemode.sandbox.source_changes import prepared

MakeCall = Callable[[ToolCall], Awaitable[ToolOutcome]]
ENVELOPE = 64 << 10  # bytes of a message besides its content

log = logging.getLogger(__name__)


class BrokenError(Exception):
    """The child violated the protocol, so the program probably controls it."""


def start(program: Program) -> Start:
    """Return the start message, with the servers that the source names."""
    words = set(re.findall(r"\w+", program.source))
    limits = program.limits
    return Start(
        prepared(program),
        {space.name: tools(space) for space in program.tools if space.name in words},
        limits.deadline,
        limits.calls,
        limits.message,
        limits.output,
        limits.memory,
    )


def tools(space: Namespace) -> tuple[Tool, ...]:
    """Return the functions of a namespace."""
    return tuple(Tool(each.name, each.parameters, each.required) for each in space.functions)


def outcome_of(call: Call, made: ToolOutcome) -> Outcome:
    """Convert an outcome to a message; a failure contains only code and text."""
    if made.failure:
        return Outcome(call.id, None, made.failure.code or "failed", made.failure.message)
    return Outcome(call.id, made.value)


@dataclass(slots=True)
class Session:
    """Connection with the child of one run, from the start message to the final message."""

    program: Program
    make_call: MakeCall
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    calls: int = 0
    printed: str = ""
    running: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def limits(self) -> Limits:
        """Limits of this run."""
        return self.program.limits

    async def hold(self) -> Done | ProgramFailed | None:
        """Run until the child sends its final message.

        Return None if it ended without that message.
        """
        known = {
            (space.name, each.name): (space, each)
            for space in self.program.tools
            for each in space.functions
        }
        try:
            self.writer.write(with_length(start(self.program)))
            while True:
                message = await self.receive()
                if not isinstance(message, Calls):
                    return message
                self.take(message, known)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        finally:
            await self.forsake()

    async def receive(self) -> Calls | Done | ProgramFailed:
        """Receive the next message, of limited size."""
        length = int.from_bytes(await self.reader.readexactly(HEADER), "big")
        if length > max(self.limits.message, self.limits.output) + ENVELOPE:
            return ProgramFailed(
                "message_too_large", "The program sent a message that exceeds the size limit."
            )
        try:
            message: Calls | Done | ProgramFailed = child_decoder.decode(
                await self.reader.readexactly(length)
            )
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise BrokenError from error
        return message

    def take(
        self, message: Calls, known: dict[tuple[str, str], tuple[Namespace, Function]]
    ) -> None:
        """Start the requested calls. Raises `BrokenError` for calls that no program can request."""
        self.calls += len(message.calls)
        if self.calls > self.limits.calls or not message.calls:
            raise BrokenError
        requested = []
        for call in message.calls:
            found = known.get((call.namespace, call.function))
            if found is None:
                raise BrokenError
            space, function = found
            requested.append((call, ToolCall(space.server, function.tool, call.arguments)))
        task = asyncio.create_task(self.answer(requested))
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def answer(self, requested: list[tuple[Call, ToolCall]]) -> None:
        """Make calls concurrently and send the child their outcomes."""
        if len(requested) == 1:  # the usual case, without tasks
            made = [await self.made(*requested[0])]
        else:
            made = await asyncio.gather(*(self.made(call, wanted) for call, wanted in requested))
        data = with_length(Outcomes(tuple(made)))
        if len(data) > self.limits.message + ENVELOPE:
            too_large = "The results of the tools together exceed the size limit of a message."
            refused = (Outcome(each.id, None, "message_too_large", too_large) for each in made)
            data = with_length(Outcomes(tuple(refused)))
        self.writer.write(data)
        await self.writer.drain()

    async def made(self, call: Call, wanted: ToolCall) -> Outcome:
        """Make one call.

        Only the class of an exception is logged, because its text may contain a secret.
        """
        try:
            return outcome_of(call, await self.make_call(wanted))
        except Exception as error:  # noqa: BLE001 - the program must not see any exception
            log.error("program.call_failed", extra={"reason": type(error).__name__})  # noqa: TRY400
            failure = Failure(
                "internal", "The call failed inside the gateway; see the log of codemode."
            )
            return outcome_of(call, ToolOutcome(failure=failure))

    async def forsake(self) -> None:
        """Cancel the calls that are still running."""
        for task in tuple(self.running):
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
