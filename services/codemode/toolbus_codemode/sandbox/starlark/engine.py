"""Starlark engine, which runs a program with tools as functions and returns its result."""

import itertools
import re
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any, NoReturn

import msgspec
import starlark

from toolbus_codemode.sandbox.argument_binding import NotBoundError, bound
from toolbus_codemode.sandbox.call_log import CallLog, RunCalls
from toolbus_codemode.sandbox.protocol import Call, Done, Outcome, ProgramFailed, Start, Tool

CALL_STACK = 200
FILE = "program"
EXTENSIONS = [
    starlark.LibraryExtension.StructType,
    starlark.LibraryExtension.Json,
    starlark.LibraryExtension.Map,
    starlark.LibraryExtension.Filter,
    starlark.LibraryExtension.Partial,
]
SHOWN = 500
encoder = msgspec.json.Encoder()


def dialect() -> starlark.Dialect:
    """Return the dialect: everything except `load`, because a program is one file."""
    spoken = starlark.Dialect.extended()
    spoken.enable_f_strings = True
    spoken.enable_load = False
    spoken.enable_load_reexport = False
    return spoken


DIALECT = dialect()
GLOBALS = starlark.Globals.extended_by(EXTENSIONS)
PRELUDE = (files(__package__) / "prelude.star").read_text()


class Stopped(Exception):  # noqa: N818 - control flow; its reason is stored separately
    """The program must stop. The exception has no text, because the engine would show it."""


class Run:
    """Run of one program in one or more passes."""

    def __init__(
        self, start: Start, run_calls: RunCalls, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.program = start
        self.clock = clock
        self.ends_at = clock() + start.deadline
        self.run_calls = run_calls
        self.call_log = CallLog(self.counted, kept="parallel" in start.source)
        self.ids = itertools.count()
        self.prepared: list[Call] = []
        self.mode = ""
        self.failure: tuple[str, str, str] | None = None
        self.printed: list[str] = []
        self.printed_bytes = 0
        self.called = 0

    def stop(self, name: str, message: str, subject: str = "") -> NoReturn:
        """Stop the program with this error; an earlier error takes precedence."""
        self.failure = self.failure or (name, message, subject)
        raise Stopped

    def tool(self, namespace: str, tool: Tool) -> Callable[..., Any]:
        """Return the function that a program calls to use a tool."""

        def function(*positional: Any, **named: Any) -> Any:
            mode, self.mode = self.mode, ""
            arguments = self.bound(namespace, tool, positional, named)
            call = Call(next(self.ids), namespace, tool.name, arguments)
            if mode == "prepare":
                self.prepared.append(call)
                return len(self.prepared) - 1
            return self.value_of(self.outcome(call), caught=mode == "try")

        return function

    def bound(
        self, namespace: str, tool: Tool, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments by name. A mismatch stops the program."""
        try:
            return bound(namespace, tool, positional, named)
        except NotBoundError as error:
            self.stop("wrong_argument", str(error), error.subject)

    def outcome(self, call: Call) -> Outcome:
        """Return the outcome of one call within the limits."""
        self.check_time()
        return self.call_log.outcome(call)

    def counted(self, calls: tuple[Call, ...]) -> tuple[Outcome, ...]:
        """Make calls and return their outcomes; stop the program at the limit of calls."""
        self.called += len(calls)
        if self.called > self.program.calls:
            self.stop("too_many_calls", f"A program can make at most {self.program.calls} calls.")
        return self.run_calls(calls)

    def value_of(self, outcome: Outcome, *, caught: bool) -> Any:
        """Return the value of an outcome; a failure that is not caught stops the program."""
        if caught:
            return {"value": outcome.value, "code": outcome.code, "message": outcome.message}
        if outcome.code:
            self.stop("tool_failed", f"{outcome.code}: {outcome.message}", outcome.code)
        return outcome.value

    def together(self, numbers: list[Any], catch: Any) -> list[Any]:
        """Make prepared calls concurrently and return their values."""
        self.check_time()
        outcomes = self.call_log.together(tuple(self.again(number) for number in numbers))
        return [self.value_of(outcome, caught=bool(catch)) for outcome in outcomes]

    def again(self, number: Any) -> Call:
        """Return a copy, with a new id, of the call that was prepared under this number."""
        if not isinstance(number, int) or not 0 <= number < len(self.prepared):
            self.stop("wrong_argument", "The value is not a call prepared with call().", "parallel")
        before = self.prepared[number]
        return Call(next(self.ids), before.namespace, before.function, before.arguments)

    def set_mode(self, mode: str) -> None:
        """Set the mode of the next tool call.

        If the previous mode was not used, no tool was called, and the program stops.
        """
        if self.mode and not mode:
            self.stop("wrong_argument", "This function takes a tool and its arguments.", "try_call")
        self.mode = mode

    def wrong(self, subject: str, usage: str) -> None:
        """Stop the program because a function of the prelude was misused."""
        self.stop("wrong_argument", f"The usage of {subject} is: {usage}.", "")

    def print(self, *values: Any, sep: str = " ", end: str = "\n") -> None:
        """Collect printed text up to the limit."""
        text = str(sep).join(v if isinstance(v, str) else shown(v) for v in values) + str(end)
        self.printed_bytes += len(text)
        if self.printed_bytes > self.program.output:
            self.stop("output_too_large", "The program exceeded its output limit.")
        self.printed.append(text)

    def fork(self, branches: int) -> int:
        """Begin a `parallel` with this number of branches; return its id in the call log."""
        if branches > self.program.calls:
            self.stop("too_many_calls", f"A program can make at most {self.program.calls} calls.")
        return self.call_log.fork()

    def check_time(self) -> None:
        """Stop the program if the deadline has passed; the engine does not check slow calls."""
        if self.late():
            self.stop("time", f"The program took longer than {self.program.deadline:g} s.")

    def late(self) -> bool:
        """Return whether the deadline has passed."""
        return self.clock() >= self.ends_at

    def module(self) -> starlark.Module:
        """Return a new module with the prelude and the tools."""
        module = starlark.Module()
        bound: dict[str, Callable[..., Any]] = {
            "_mode": self.set_mode,
            "_together": self.together,
            "_wrong": self.wrong,
            "_fork": self.fork,
            "_enter": self.call_log.enter,
            "_leave": self.call_log.leave,
            "_join": self.join,
            "print": self.print,
        }
        lines = [PRELUDE]
        for name, tools in self.program.namespaces.items():
            fields = []
            for number, tool in enumerate(tools):
                bound[f"_{name}_{number}"] = self.tool(name, tool)
                fields.append(f"{tool.name}=_{name}_{number}")
            lines.append(f"{name} = struct({', '.join(fields)})")
        for name, function in bound.items():
            module.add_callable(name, function)
        starlark.eval(module, starlark.parse("prelude", "\n".join(lines), DIALECT), GLOBALS)
        return module

    def join(self) -> None:
        """End a `parallel`; stop the pass if one of its branches waits for a call."""
        self.check_time()
        self.call_log.join()

    def passed(self) -> Any:
        """Run one pass and return the value. The engine raises an exception if the pass stops."""
        self.call_log.start_over()
        self.printed, self.printed_bytes, self.mode, self.prepared = [], 0, "", []
        module = self.module()
        options = starlark.EvalOptions(check_cancelled=self.late, max_callstack_size=CALL_STACK)
        tree = starlark.parse(FILE, self.program.source, DIALECT)
        evaluated = starlark.eval_with(options, module, tree, GLOBALS)
        named = module["result"]
        return named if named is not None else evaluated.value

    def run(self) -> Done | ProgramFailed:
        """Run passes until one completes or fails."""
        while True:
            try:
                return self.done(self.passed())
            except starlark.StarlarkError as error:
                text = str(error)
            except MemoryError:
                return ProgramFailed("memory", "The program exceeded its memory limit.")
            except RecursionError:
                return ProgramFailed("too_deep", "A value is nested too deeply.")
            except (TypeError, ValueError, UnicodeError):
                return ProgramFailed("not_plain", "The result is not JSON data.")
            if self.failure or self.late() or not self.call_log.again:
                return self.failed(text)

    def done(self, value: Any) -> Done | ProgramFailed:
        """Return the result of a completed program."""
        try:
            body = encoder.encode(value)
        except (TypeError, OverflowError, ValueError) as error:
            return ProgramFailed("not_plain", f"The result is not JSON data: {error}"[:SHOWN])
        if len(body) + self.printed_bytes > self.program.output:
            return ProgramFailed("output_too_large", "The result exceeds its size limit.")
        return Done(msgspec.Raw(body), "".join(self.printed))

    def failed(self, text: str) -> ProgramFailed:
        """Return the failure of a program that was stopped or raised an error."""
        line, column = where(text)
        printed = "".join(self.printed)
        if self.late() and not self.failure:
            self.failure = (
                "time",
                f"The program took longer than {self.program.deadline:g} s.",
                "",
            )
        if self.failure:
            name, message, subject = self.failure
            return ProgramFailed(name, message, line, column, subject, printed)
        name, message = named(text)
        return ProgramFailed(name, message[:SHOWN], line, column, "", printed)


def shown(value: Any) -> str:
    """Return the text that `print` prints for a value."""
    if value is None or isinstance(value, bool):
        return str(value)
    try:
        return encoder.encode(value).decode()
    except (TypeError, ValueError, OverflowError):
        return str(value)


def where(text: str) -> tuple[int | None, int | None]:
    """Return the innermost line and column in the program from the engine's error text."""
    if at := re.search(rf"^ *--> {FILE}:(\d+):(\d+)$", text, re.MULTILINE):
        return int(at[1]), int(at[2])
    if lines := re.findall(rf"^ *\* {FILE}:(\d+), in ", text, re.MULTILINE):
        return int(lines[-1]), None
    return None, None


NAMED = (
    (r"^error: Parse error|Not a valid identifier|is not allowed in this dialect", "syntax"),
    (r"^error: Variable `[^`]*` not found|has no attribute", "unknown_name"),
    (r"Starlark call stack overflow", "too_deep"),
    (r"^error: MemoryError", "memory"),
    (r"Operation `serde::serialize` not supported|Cycle detected", "not_plain"),
)


def named(text: str) -> tuple[str, str]:
    """Return the name and message of an error of the engine."""
    found = re.search(r"^error: (.*)$", text, re.MULTILINE)
    message = found[1] if found else text.strip().split("\n", 1)[0]
    for pattern, name in NAMED:
        if re.search(pattern, text, re.MULTILINE):
            return name, message
    return "runtime", message
