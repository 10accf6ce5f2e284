"""Sandbox that runs each program in a separate process and kills the process at its deadline."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from toolbus_codemode.sandbox import error_hints, prechecks
from toolbus_codemode.sandbox.process.launcher import Launched, Launcher, UnavailableError
from toolbus_codemode.sandbox.program import Engine, Limits, Program, ProgramError, ProgramResult
from toolbus_codemode.sandbox.protocol import Done, ProgramFailed
from toolbus_codemode.sandbox.session import BrokenError, MakeCall, Session
from toolbus_common.concurrency import end

log = logging.getLogger(__name__)
GRACE = 0.25  # seconds after the deadline in which the child may report the timeout
plain = msgspec.json.Decoder()
LAUNCHERS: dict[Engine, str] = {
    "starlark": "toolbus_codemode.sandbox.process.zygote",
    "python": "toolbus_codemode.sandbox.python.worker_host",
}


class Usage(NamedTuple):
    """Resource use of a run: calls, seconds, seconds of processor time."""

    calls: int
    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """Settings of the sandbox; `max_runs` limits concurrent runs."""

    engines: tuple[Engine, ...] = ("starlark", "python")
    max_runs: int = 64
    spares: int = 4
    default: Limits = field(default_factory=Limits)
    without_seccomp: bool = False


@dataclass(frozen=True, slots=True)
class Protection:
    """Protection of an engine, and whether this host supports it."""

    engine: Engine
    name: str
    in_force: bool


class Sandbox:
    """Sandbox with all engines; the first program starts the engines if they are not started."""

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self.settings = settings or SandboxSettings()
        allowed = ("--without-seccomp",) if self.settings.without_seccomp else ()
        default = {"memory": self.settings.default.memory, "cpu": self.settings.default.cpu}
        self.launchers = {
            engine: Launcher(LAUNCHERS[engine], default, self.settings.spares, allowed)
            for engine in self.settings.engines
        }
        self.protections: tuple[Protection, ...] = ()
        self.unavailable: dict[Engine, str] = {}
        self.starting: dict[Engine, asyncio.Task[None]] = {}
        self.slots = asyncio.Semaphore(self.settings.max_runs)

    async def start(self) -> None:
        """Start the engines and wait. Raises `UnavailableError` if none can run on this host."""
        self.begin()
        await asyncio.gather(*self.starting.values())
        if len(self.unavailable) == len(self.launchers):
            await self.close()
            raise UnavailableError(" ".join(self.unavailable.values()))

    def begin(self) -> None:
        """Start the engines in the background; a program waits for its engine."""
        for engine in self.launchers:
            if engine not in self.starting:
                self.starting[engine] = asyncio.create_task(self.started(engine))

    async def started(self, engine: Engine) -> None:
        """Start one engine and check its protections.

        An engine that cannot start, or that lacks a required protection, is recorded as
        unavailable.
        """
        try:
            self.record_protections(engine, await self.launchers[engine].start())
            await self.launchers[engine].fill()
        except (UnavailableError, OSError) as error:
            log.warning("sandbox.unavailable", extra={"engine": engine, "reason": str(error)})
            self.unavailable[engine] = str(error)

    def record_protections(self, engine: Engine, reported: dict[str, bool]) -> None:
        """Record an engine's protections. Raises `UnavailableError` if they are insufficient."""
        self.protections += tuple(
            Protection(engine, name, bool(in_force)) for name, in_force in reported.items()
        )
        if not reported.get("seccomp") and not self.settings.without_seccomp:
            raise UnavailableError(
                f"The {engine} engine cannot run on this host, which has no seccomp filter for it. "
                "Set TOOLBUS_WITHOUT_SECCOMP to allow it if every program is trusted."
            )

    async def close(self) -> None:
        """End every run and the engines."""
        await end(*self.starting.values())
        for launcher in self.launchers.values():
            await launcher.close()

    async def run(self, program: Program, call: MakeCall) -> ProgramResult:
        """Run one program and return its result or error; no program can cause an exception."""
        if refused := prechecks.refused(program.source):
            return ProgramResult(error=refused)
        self.begin()
        if program.engine in self.starting:
            await asyncio.shield(self.starting[program.engine])
        if program.engine not in self.launchers or program.engine in self.unavailable:
            why = self.unavailable.get(program.engine, f"The {program.engine} engine is disabled.")
            return ProgramResult(error=ProgramError("unavailable", why, hint="Use another engine."))
        async with self.slots:
            return await self.launched(program, call)

    async def launched(self, program: Program, call: MakeCall) -> ProgramResult:
        """Launch a process for the program and run it."""
        try:
            process = await self.launchers[program.engine].launch(
                memory=program.limits.memory, cpu=program.limits.cpu
            )
        except UnavailableError as error:
            return ProgramResult(error=ProgramError("unavailable", str(error), hint="Try again."))
        try:
            return await held(program, call, process)
        finally:
            process.kill()


async def held(program: Program, call: MakeCall, process: Launched) -> ProgramResult:
    """Run a program in its process until it ends or its deadline passes; return the result."""
    began, before = time.monotonic(), process.cpu
    reader, writer = await asyncio.open_unix_connection(sock=process.socket)
    session = Session(program, call, reader, writer)
    try:
        async with asyncio.timeout(program.limits.deadline + GRACE):
            message = await session.hold()
            error = None if message else error_hints.death(await process.ended, program.limits)
    except TimeoutError:
        message, error = None, error_hints.late(program.limits)
    except BrokenError:
        message = None
        error = error_hints.plain("crashed", "The program's engine broke its protocol.")
    finally:
        usage = Usage(session.calls, time.monotonic() - began, max(0.0, process.cpu - before))
        writer.transport.abort()
    return _result_of(program, message, error, usage)


def _result_of(
    program: Program,
    message: Done | ProgramFailed | None,
    error: ProgramError | None,
    usage: Usage,
) -> ProgramResult:
    """Return the result of a run."""
    if isinstance(message, Done):
        return _completed(program, message, usage)
    prints = message.printed[: program.limits.output] if message else ""
    if message:
        error = error_hints.explained(message, program)
    return ProgramResult(None, error, prints, *usage)


def _completed(program: Program, message: Done, usage: Usage) -> ProgramResult:
    """Return the result of a completed run; the untrusted value is decoded within limits."""
    maximum = program.limits.output
    if len(message.value) + len(message.printed) > maximum:
        error = error_hints.plain("output_too_large", "The result exceeds its size limit.")
        return ProgramResult(None, error, message.printed[:maximum], *usage)
    try:
        value = plain.decode(message.value)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        error = error_hints.plain("not_plain", "The result is not JSON data.")
        return ProgramResult(None, error, message.printed, *usage)
    return ProgramResult(value, None, message.printed, *usage)
