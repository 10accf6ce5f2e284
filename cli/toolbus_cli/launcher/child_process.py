"""One supervised child process: bound to the launcher, restarted with backoff, and stopped."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from toolbus_common.process.tethered import tethered

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
STEADY_SECONDS = 10.0  # a process that ran this long resets its backoff
LONGEST_LINE = 1 << 20
KILLED_SECONDS = 5.0

OnLine = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run. `on_line` receives its output lines; lower stages stop first."""

    name: str
    command: Sequence[str]
    on_line: OnLine
    stage: int = 0
    environment: dict[str, str] = field(default_factory=dict, repr=False)


class Child:
    """A child process that runs a program, and restarts it until `stop` or `kill` is called."""

    def __init__(self, program: Program, note: Callable[[str, str], None], held: int) -> None:
        self.program = program
        self.pid: int | None = None
        self.starts = 0
        self.last_words: deque[str] = deque(maxlen=8)
        self._note = note
        self._held = held
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep())

    async def stop(self, seconds: float) -> None:
        """Send SIGTERM; kill the process group if it does not stop within `seconds`."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        _, late = await asyncio.wait({self._task}, timeout=seconds)
        if late:
            self._note(
                f"{self.program.name} did not stop within {seconds:.0f} s and was killed", "warning"
            )
            self.kill()
            await asyncio.wait({self._task}, timeout=KILLED_SECONDS)

    def kill(self) -> None:
        """Kill the process and its group immediately."""
        self._stopping.set()
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            code = await self._live()
            if self._stopping.is_set():
                return
            if loop.time() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            self._note(f"{self.program.name} exited ({how}); restarting in {pause:g} s", "warning")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _live(self) -> int:
        """Run the process once; return its exit code."""
        self.starts += 1
        process = self._process = await asyncio.create_subprocess_exec(
            *tethered(self.program.command, signal=signal.SIGTERM),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self.program.environment},
            pass_fds=(self._held,),
            limit=LONGEST_LINE,
        )
        self.pid = process.pid
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        reading = asyncio.create_task(self._read(process))
        code = await process.wait()
        # A grandchild may keep the pipe open; later output is discarded.
        await asyncio.wait({reading}, timeout=0.2)
        reading.cancel()
        self.pid = None
        return code

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the limit: the rest follows as the next line
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self.last_words.append(text)
            self.program.on_line(self.program.name, text)
