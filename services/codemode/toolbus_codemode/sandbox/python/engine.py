"""Python engine, which runs a program in a worker with tools as awaitable functions."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pydantic_monty

from toolbus_codemode.sandbox.argument_binding import NotBoundError, bound
from toolbus_codemode.sandbox.protocol import (
    HEADER,
    Call,
    Calls,
    Done,
    Message,
    Outcome,
    Outcomes,
    ProgramFailed,
    Start,
    Tool,
    service_decoder,
    with_length,
)

# Each server is imported under this prefix and bound to its name. Under the plain name, the engine
# would import its standard library's `time` instead of a server of that name.
MODULE = "_toolbus_server_"
UNAWAITED = "<coroutine external_future("
RECURSION = 200
SUSPENSIONS = 10_000
SHOWN = 500
LONGEST_FAILURE = 4_000  # characters of a call's failure, which ends with the advice
FLOODED = "The program exceeded its output limit."
encoder = msgspec.json.Encoder()

# Error names by exception class; the first matching class is used.
NAMED: tuple[tuple[type[BaseException], str], ...] = (
    (MemoryError, "memory"),
    (TimeoutError, "time"),
    (RecursionError, "too_deep"),
    (SyntaxError, "syntax"),
    (ImportError, "unknown_name"),
    (NameError, "unknown_name"),
    (AttributeError, "unknown_name"),
)


def limits(memory: int, cpu: int) -> pydantic_monty.ResourceLimits:
    """Return the limits of the engine; `cpu` is in seconds and excludes the time of calls."""
    return {
        "max_memory": memory,
        "max_feed_duration_secs": float(cpu),
        "max_recursion_depth": RECURSION,
        "max_suspensions": SUSPENSIONS,
    }


class Stopped(Exception):  # noqa: N818 - raised into the program, which may catch it
    """A call failed; the text is the code and message from the service."""


class Prints:
    """Collector of printed text up to a limit."""

    def __init__(self, maximum: int, flooded: Callable[[], object]) -> None:
        self.left = maximum
        self.flooded = flooded
        self.parts: list[str] = []

    def take(self, _stream: str, text: str) -> None:
        """Add text; beyond the limit, call `flooded` instead.

        No exception is raised, because the engine would report it only at the end.
        """
        if self.left < 0:
            return
        self.left -= len(text)
        if self.left < 0:
            self.flooded()
        else:
            self.parts.append(text)

    @property
    def text(self) -> str:
        """All printed text."""
        return "".join(self.parts)


class Run:
    """Run of one program in one worker."""

    def __init__(
        self,
        session: pydantic_monty.AsyncMontySession,
        modules: dict[str, pydantic_monty.ExternalModule],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.session = session
        self.modules = modules
        self.reader = reader
        self.writer = writer
        self.ids = itertools.count()
        self.waiting: dict[int, asyncio.Future[Outcome]] = {}
        self.failures: dict[str, tuple[str, str]] = {}
        self.called = 0

    async def receive(self) -> Start | Outcomes:
        """Receive the next message."""
        length = int.from_bytes(await self.reader.readexactly(HEADER), "big")
        message: Start | Outcomes = service_decoder.decode(await self.reader.readexactly(length))
        return message

    def send(self, message: Message) -> None:
        """Send a message."""
        self.writer.write(with_length(message))

    async def run(self) -> None:
        """Receive a program, run it and send its result; stop if the service disconnects."""
        try:
            start = await self.receive()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        if not isinstance(start, Start):
            return
        self.start = start
        running = asyncio.create_task(self.ended())
        receiving = asyncio.create_task(self.receive_outcomes())
        await asyncio.wait((running, receiving), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            running.cancel()
            await asyncio.wait((running,))
            return
        self.send(running.result())
        await self.writer.drain()
        await receiving  # the service reads the worker's resource use, and disconnects

    async def receive_outcomes(self) -> None:
        """Pass each outcome to its call."""
        while True:
            try:
                message = await self.receive()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            for outcome in message.outcomes if isinstance(message, Outcomes) else ():
                waits = self.waiting.pop(outcome.id, None)
                if waits and not waits.done():
                    waits.set_result(outcome)

    async def ended(self) -> Done | ProgramFailed:
        """Run the program and return its result or failure."""
        loop, running = asyncio.get_running_loop(), asyncio.current_task()
        assert running  # noqa: S101 - a coroutine runs in a task
        prints = Prints(self.start.output, lambda: loop.call_soon_threadsafe(running.cancel))
        try:
            async with asyncio.timeout(self.start.deadline):
                value = await self.value(prints)
                await asyncio.sleep(0)  # raises a pending cancellation for too much output
                return self.done(value, prints.text)
        except asyncio.CancelledError:
            if prints.left >= 0:
                raise
            return ProgramFailed("output_too_large", FLOODED, printed=prints.text)
        except TimeoutError:
            late = f"The program took longer than {self.start.deadline:g} s."
            return ProgramFailed("time", late, printed=prints.text)
        except pydantic_monty.MontyCrashedError:
            return ProgramFailed("crashed", "The program's worker crashed.", printed=prints.text)
        except (pydantic_monty.MontySyntaxError, pydantic_monty.MontyRuntimeError) as error:
            return self.failed(error, prints.text)
        except pydantic_monty.MontyError as error:
            return ProgramFailed("not_plain", str(error)[:SHOWN], printed=prints.text)

    async def value(self, prints: Prints) -> Any:
        """Run the program and return its `result`, or the value of its last expression."""
        for name, tools in self.start.namespaces.items():
            functions = {tool.name: self.function(name, tool) for tool in tools}
            module = pydantic_monty.ExternalModule(functions)
            self.modules[name] = self.modules[f"{MODULE}{name}"] = module
        if self.modules:
            imported = (f"{MODULE}{name} as {name}" for name in self.start.namespaces)
            await self.session.feed_run("import " + ", ".join(imported))
        value = await self.session.feed_run(self.start.source, print_callback=prints.take)
        if "result" in self.start.source:
            return await self.named(value)
        return value

    async def named(self, value: Any) -> Any:
        """Return the global variable `result`, else the given value."""
        try:
            return await self.session.feed_run("result")
        except pydantic_monty.MontyRuntimeError as error:
            if isinstance(error.exception(), NameError):
                return value
            raise

    def function(self, namespace: str, tool: Tool) -> Callable[..., Awaitable[Any]]:
        """Return the function that a program awaits for a tool."""

        async def function(*positional: Any, **named: Any) -> Any:
            try:
                arguments = bound(namespace, tool, positional, named)
                encoded = encoder.encode(arguments)
            except NotBoundError as error:
                raise self.remembered(
                    TypeError(str(error)), "wrong_argument", error.subject
                ) from None
            except (TypeError, ValueError, OverflowError, RecursionError):
                text = f"{namespace}.{tool.name} received a value that is not JSON data."
                raise self.remembered(TypeError(text), "wrong_argument", "") from None
            if len(encoded) > self.start.message:
                text = "The arguments exceed the size limit of a message."
                raise self.remembered(RuntimeError(text), "message_too_large", "")
            return await self.outcome(Call(next(self.ids), namespace, tool.name, arguments))

        return function

    def remembered(self, error: Exception, name: str, subject: str) -> Exception:
        """Store and return an exception, so that `failed` recognizes it if it is not caught."""
        self.failures[str(error)] = (name, subject)
        return error

    async def outcome(self, call: Call) -> Any:
        """Make one call and return its value. Raises an exception in the program if it fails."""
        self.called += 1
        if self.called > self.start.calls:
            text = f"A program can make at most {self.start.calls} calls."
            raise self.remembered(RuntimeError(text), "too_many_calls", "")
        waits: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.waiting[call.id] = waits
        self.send(Calls((call,)))
        outcome = await waits
        if outcome.code:
            text = f"{outcome.code}: {outcome.message}"
            raise self.remembered(RuntimeError(text), "tool_failed", outcome.code)
        return outcome.value

    def done(self, value: Any, printed: str) -> Done | ProgramFailed:
        """Return the result of a completed program."""
        if isinstance(value, str) and value.startswith(UNAWAITED):
            return ProgramFailed(
                "not_plain", "The result is a call that was not awaited; write await before it."
            )
        try:
            body = encoder.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            return ProgramFailed(
                "not_plain", f"The result is not JSON data: {error}"[:SHOWN], printed=printed
            )
        if len(body) + len(printed) > self.start.output:
            return ProgramFailed("output_too_large", "The result exceeds its size limit.")
        return Done(msgspec.Raw(body), printed)

    def failed(
        self,
        error: pydantic_monty.MontySyntaxError | pydantic_monty.MontyRuntimeError,
        printed: str,
    ) -> ProgramFailed:
        """Return the failure of a program that raised an exception."""
        exception = error.exception()
        text = str(exception)
        line, column = position(error)
        name, subject = self.failures.get(text, ("", ""))
        if not name:
            name = next((word for kind, word in NAMED if isinstance(exception, kind)), "runtime")
        if isinstance(error, pydantic_monty.MontySyntaxError):
            name = "too_deep" if "nested" in text else "syntax"
        if name in {"tool_failed", "wrong_argument"}:
            message = text[:LONGEST_FAILURE]
        else:
            message = f"{type(exception).__name__}: {text}"[:SHOWN]
        return ProgramFailed(name, message, line, column, subject, printed)


def position(
    error: pydantic_monty.MontySyntaxError | pydantic_monty.MontyRuntimeError,
) -> tuple[int | None, int | None]:
    """Return the innermost position in the program."""
    entries = error.traceback()
    return (entries[-1].line, entries[-1].column) if entries else (None, None)
