"""The service's side of one run: hears calls, has them made, and believes nothing it is told."""

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
    framed,
    heard,
)

MakeCall = Callable[[ToolCall], Awaitable[ToolOutcome]]
ENVELOPE = 64 << 10  # what a message may have around its largest content
log = logging.getLogger(__name__)


class BrokenError(Exception):
    """The child said what no child of ours says: it is no longer ours."""


def start(program: Program) -> Start:
    """The program as its child is told it: with the servers that its source names."""
    words = set(re.findall(r"\w+", program.source))
    limits = program.limits
    return Start(
        program.source,
        {space.name: tools(space) for space in program.tools if space.name in words},
        limits.deadline,
        limits.calls,
        limits.message,
        limits.output,
        limits.memory,
    )


def tools(space: Namespace) -> tuple[Tool, ...]:
    """The functions of a namespace."""
    return tuple(Tool(each.name, each.parameters, each.required) for each in space.functions)


def outcome_of(call: Call, made: ToolOutcome) -> Outcome:
    """An outcome on the wire: a failure is its code and message, never anything else."""
    if made.failure:
        return Outcome(call.id, None, made.failure.code or "failed", made.failure.message)
    return Outcome(call.id, made.value)


@dataclass(slots=True)
class Conversation:
    """Messages of one run, until it has ended."""

    program: Program
    make_call: MakeCall
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    calls: int = 0
    printed: str = ""
    under_way: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def limits(self) -> Limits:
        """What this run may use."""
        return self.program.limits

    async def hold(self) -> Done | ProgramFailed | None:
        """Talk until the child tells its end; None when it went away without one."""
        known = {
            (space.name, each.name): (space, each)
            for space in self.program.tools
            for each in space.functions
        }
        try:
            self.writer.write(framed(start(self.program)))
            while True:
                message = await self.hear()
                if not isinstance(message, Calls):
                    return message
                self.take(message, known)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        finally:
            await self.forsake()

    async def hear(self) -> Calls | Done | ProgramFailed:
        """The next message, of a size we allow."""
        length = int.from_bytes(await self.reader.readexactly(HEADER), "big")
        if length > max(self.limits.message, self.limits.output) + ENVELOPE:
            return ProgramFailed(
                "message_too_large", "The program sent a message larger than it may."
            )
        try:
            message: Calls | Done | ProgramFailed = heard.decode(
                await self.reader.readexactly(length)
            )
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise BrokenError from error
        return message

    def take(
        self, message: Calls, known: dict[tuple[str, str], tuple[Namespace, Function]]
    ) -> None:
        """Begin the calls asked for, if they are calls a program can ask for."""
        self.calls += len(message.calls)
        if self.calls > self.limits.calls or not message.calls:
            raise BrokenError
        asked = []
        for call in message.calls:
            found = known.get((call.namespace, call.function))
            if found is None:
                raise BrokenError
            space, function = found
            asked.append((call, ToolCall(space.server, function.tool, call.arguments)))
        task = asyncio.create_task(self.answer(asked))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def answer(self, asked: list[tuple[Call, ToolCall]]) -> None:
        """Make calls at once, and tell the child what they came to."""
        if len(asked) == 1:  # by far the most: no task for it
            made = [await self.made(*asked[0])]
        else:
            made = await asyncio.gather(*(self.made(call, wanted) for call, wanted in asked))
        frame = framed(Outcomes(tuple(made)))
        if len(frame) > self.limits.message + ENVELOPE:
            too_large = "The tools' results are together larger than a message may be."
            refused = (Outcome(each.id, None, "message_too_large", too_large) for each in made)
            frame = framed(Outcomes(tuple(refused)))
        self.writer.write(frame)
        await self.writer.drain()

    async def made(self, call: Call, wanted: ToolCall) -> Outcome:
        """One call. The text of what it raises may hold a secret: only its class is logged."""
        try:
            return outcome_of(call, await self.make_call(wanted))
        except Exception as error:  # noqa: BLE001 - whatever it is, the program may not see it
            log.error("program.call_failed", extra={"reason": type(error).__name__})  # noqa: TRY400
            failure = Failure("internal", "The call failed inside the gateway.")
            return outcome_of(call, ToolOutcome(failure=failure))

    async def forsake(self) -> None:
        """Take back the calls nobody waits for any longer."""
        for task in tuple(self.under_way):
            task.cancel()
        await asyncio.gather(*self.under_way, return_exceptions=True)
