"""The sandbox: runs programs, each in a process of its own that is killed when it overstays."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from toolbus_codemode.sandbox import error_hints, prechecks
from toolbus_codemode.sandbox.process.launcher import Launched, Launcher, UnavailableError
from toolbus_codemode.sandbox.program import Ended, Engine, Limits, Program, ProgramError
from toolbus_codemode.sandbox.protocol import Done, ProgramFailed
from toolbus_codemode.sandbox.session import BrokenError, Conversation, MakeCall
from toolbus_common.concurrency import end

log = logging.getLogger(__name__)
GRACE = 0.25  # what a child has past its deadline to tell of it itself
plain = msgspec.json.Decoder()
LAUNCHERS: dict[Engine, str] = {
    "starlark": "toolbus_codemode.sandbox.process.zygote",
    "python": "toolbus_codemode.sandbox.python.worker_host",
}


class Took(NamedTuple):
    """What a run used: calls, seconds, seconds of processor."""

    calls: int
    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What the operator decides."""

    engines: tuple[Engine, ...] = ("starlark", "python")
    most_runs: int = 64
    spares: int = 4
    usual: Limits = field(default_factory=Limits)
    without_seccomp: bool = False


@dataclass(frozen=True, slots=True)
class Protection:
    """One protection of one engine, and whether this host gives it."""

    engine: Engine
    name: str
    in_force: bool


class Sandbox:
    """Start it, or let the first program start it; run programs, close it."""

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self.settings = settings or SandboxSettings()
        allowed = ("--without-seccomp",) if self.settings.without_seccomp else ()
        usual = {"memory": self.settings.usual.memory, "cpu": self.settings.usual.cpu}
        self.launchers = {
            engine: Launcher(LAUNCHERS[engine], usual, self.settings.spares, allowed)
            for engine in self.settings.engines
        }
        self.protections: tuple[Protection, ...] = ()
        self.unavailable: dict[Engine, str] = {}
        self.starting: dict[Engine, asyncio.Task[None]] = {}
        self.places = asyncio.Semaphore(self.settings.most_runs)

    async def start(self) -> None:
        """Start the engines, and wait. Raises `UnavailableError` when none runs here."""
        self.begin()
        await asyncio.gather(*self.starting.values())
        if len(self.unavailable) == len(self.launchers):
            await self.close()
            raise UnavailableError(" ".join(self.unavailable.values()))

    def begin(self) -> None:
        """Have the engines start beside everything else; a program waits for its own."""
        for engine in self.launchers:
            if engine not in self.starting:
                self.starting[engine] = asyncio.create_task(self.started(engine))

    async def started(self, engine: Engine) -> None:
        """Start one engine. It proves its protections; without seccomp it does not run."""
        try:
            self.learn(engine, await self.launchers[engine].start())
            await self.launchers[engine].fill()
        except (UnavailableError, OSError) as error:
            log.warning("sandbox.unavailable", extra={"engine": engine, "reason": str(error)})
            self.unavailable[engine] = str(error)

    def learn(self, engine: Engine, told: dict[str, bool]) -> None:
        """Keep what an engine is protected by; refuse it where that is not enough."""
        self.protections += tuple(
            Protection(engine, name, bool(in_force)) for name, in_force in told.items()
        )
        if not told.get("seccomp") and not self.settings.without_seccomp:
            raise UnavailableError(
                f"The {engine} engine does not run here: this host has no seccomp filter for it. "
                "Allow it by setting without_seccomp, where every program is trusted."
            )

    async def close(self) -> None:
        """End every run, and the engines."""
        await end(*self.starting.values())
        for launcher in self.launchers.values():
            await launcher.close()

    async def run(self, program: Program, call: MakeCall) -> Ended:
        """Run one program to its end, whatever that is. It never raises for what a program does."""
        if refused := prechecks.refused(program.source):
            return Ended(error=refused)
        self.begin()
        if program.engine in self.starting:
            await asyncio.shield(self.starting[program.engine])
        if program.engine not in self.launchers or program.engine in self.unavailable:
            why = self.unavailable.get(program.engine, f"The {program.engine} engine is off.")
            return Ended(error=ProgramError("unavailable", why, hint="Use another engine."))
        async with self.places:
            return await self.launched(program, call)

    async def launched(self, program: Program, call: MakeCall) -> Ended:
        """A process for the program, and its end."""
        try:
            process = await self.launchers[program.engine].launch(
                memory=program.limits.memory, cpu=program.limits.cpu
            )
        except UnavailableError as error:
            return Ended(error=ProgramError("unavailable", str(error), hint="Try again."))
        try:
            return await held(program, call, process)
        finally:
            process.kill()


async def held(program: Program, call: MakeCall, process: Launched) -> Ended:
    """The conversation with a child, ended by it or by the deadline."""
    began, before = time.monotonic(), process.cpu
    reader, writer = await asyncio.open_unix_connection(sock=process.socket)
    talk = Conversation(program, call, reader, writer)
    try:
        async with asyncio.timeout(program.limits.deadline + GRACE):
            said = await talk.hold()
            error = None if said else error_hints.death(await process.ended, program.limits)
    except TimeoutError:
        said, error = None, error_hints.late(program.limits)
    except BrokenError:
        said, error = None, error_hints.plain("crashed", "The program's engine broke its protocol.")
    finally:
        took = Took(talk.calls, time.monotonic() - began, max(0.0, process.cpu - before))
        writer.transport.abort()
    return told(program, said, error, took)


def told(
    program: Program,
    said: Done | ProgramFailed | None,
    error: ProgramError | None,
    took: Took,
) -> Ended:
    """The end of a run, for whoever asked for it."""
    if isinstance(said, Done):
        return done(program, said, took)
    prints = said.printed[: program.limits.output] if said else ""
    if said:
        error = error_hints.explained(said, program)
    return Ended(None, error, prints, *took)


def done(program: Program, said: Done, took: Took) -> Ended:
    """The end of a run that came to one: its value is read as hostile text."""
    most = program.limits.output
    if len(said.value) + len(said.printed) > most:
        error = error_hints.plain("output_too_large", "The result is larger than it may be.")
        return Ended(None, error, said.printed[:most], *took)
    try:
        value = plain.decode(said.value)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        error = error_hints.plain("not_plain", "The result is no plain value.")
        return Ended(None, error, said.printed, *took)
    return Ended(value, None, said.printed, *took)
