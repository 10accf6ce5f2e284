"""Isolated process of a server. The length of its output lines is limited."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress

from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.isolation.line_reader import LineReader, TooLongError
from toolbus_executor.isolation.missing_files import MissingFiles, missing_files_of
from toolbus_executor.isolation.network.egress_proxy import EgressProxy
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.isolation.standard_error import StandardError
from toolbus_executor.results.large.spill_registry import SpillRegistry

log = logging.getLogger(__name__)

LEAVE_SECONDS = 2.0  # time for a process to exit after its input was closed
# `SILENT_SECONDS` is the time for a process to exit after its output ended. `DEATH_SECONDS` is the
# time for its supervisor to end all descendants. Both are long enough for a busy machine, because a
# supervisor that is killed too early neither reports the exit nor ends descendants.
SILENT_SECONDS, DEATH_SECONDS = 5.0, 5.0
_CHUNK = 64 * 1024


class Child:
    """One process and its descendants. `on_line` receives each line of its output.

    The result of `ended` is the reason of the exit. Toolbus writes this text, because callers of
    all customers see it. Only `errors` receives the process's standard error.
    """

    def __init__(
        self,
        on_line: Callable[[bytes], None],
        spills: SpillRegistry | None = None,
        errors: StandardError | None = None,
    ) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._errors = errors or StandardError()
        self._lines = LineReader(on_line, spills)
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._gate: EgressProxy | None = None
        self.unseen = MissingFiles()

    async def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: str | None,
        isolation: Isolation,
        stdin: int = asyncio.subprocess.PIPE,
    ) -> None:
        """Start the process in its isolation. Raises `UpstreamDeadError`.

        `stdin` is the descriptor of the process's standard input; by default a pipe for `write`.
        """
        self._gate = isolation.gate
        if isolation.confined:
            self.unseen = missing_files_of(isolation.places, command, environment)
            self._errors.on_line = self.unseen.scan
            self.unseen.scan_arguments(command[1:], cwd or "")
        try:
            with self._gate.handover() if self._gate else nullcontext(-1) as handover:
                self._process = await asyncio.create_subprocess_exec(
                    *isolation.around(command, handover),
                    stdin=stdin,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env=dict(environment),
                    cwd=cwd,
                    pass_fds=() if handover < 0 else (handover,),
                )
        except OSError as error:
            raise UpstreamDeadError(
                f"Its process cannot be started ({error.strerror}); check the server's command.",
                sent=False,
            ) from error
        pipes = self._process.stdout, self._process.stderr
        assert pipes[0] is not None and pipes[1] is not None  # noqa: PT018, S101 - requested above
        self._tasks = [
            asyncio.create_task(self._read(self._process, pipes[0])),
            asyncio.create_task(self._read_errors(pipes[1])),
            asyncio.create_task(self._reap(self._process)),
        ]

    @property
    def held(self) -> dict[str, bool]:
        """The isolation in force; empty until the program starts."""
        return self._errors.held

    @property
    def pid(self) -> int | None:
        """The process id while the process runs, otherwise None."""
        return None if self._process is None or self.ended.done() else self._process.pid

    def write(self, line: bytes) -> None:
        """Write a line to the process's input.

        Raises `UpstreamDeadError` if the process has ended.
        """
        process = self._process
        if process is None or process.stdin is None or self.ended.done():
            raise UpstreamDeadError("The upstream's process is not running; retry.", sent=False)
        # The size limit of bus messages and the concurrency limit bound the buffered data.
        process.stdin.write(line + b"\n")

    async def close(self) -> None:
        """Close the input, wait a moment, then end the process and its descendants."""
        if self._process is not None:
            await self._finish(self._process)
        if self._gate is not None:
            await self._gate.close()

    async def _finish(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        await asyncio.wait((self._tasks[2],), timeout=LEAVE_SECONDS)
        self._kill(process)
        await asyncio.wait((self._tasks[2],), timeout=DEATH_SECONDS)
        self._kill(process, signal.SIGKILL)
        await asyncio.wait((self._tasks[2],), timeout=DEATH_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end("it was stopped")

    async def _read(self, process: asyncio.subprocess.Process, out: asyncio.StreamReader) -> None:
        reason = ""
        try:
            while piece := await out.read(_CHUNK):
                await self._lines.feed(piece)
        except TooLongError as error:
            reason = str(error)
        except ToolbusError as error:
            reason = f"it wrote a line that could not be stored ({error.reason})"
        except Exception:
            log.exception("upstream.line_failed")
            reason = "it wrote a line that could not be processed"
        self._lines.give_up()
        with suppress(TimeoutError):
            async with asyncio.timeout(SILENT_SECONDS):
                await process.wait()
        # A process that closed its output cannot reply any more, and neither can its descendants.
        self._kill(process)
        code = await process.wait()
        await asyncio.wait((self._tasks[1],), timeout=SILENT_SECONDS)  # for its supervisor's report
        self._end(reason or self._exit_reason(code))

    def _exit_reason(self, code: int) -> str:
        if self._errors.ended_by:
            limit = self._errors.ended_by
            return f"it exceeded limits.{limit} and was ended; raise the limit if it needs more"
        if self._errors.refused:
            return self._errors.refused
        printed = "; its output is in the log of executor" if self._errors.printed else ""
        hint = f"; {self._errors.hint}" if self._errors.hint else ""
        return f"it exited with {code}{printed}{hint}"

    async def _reap(self, process: asyncio.subprocess.Process) -> None:
        """Wait until the process ends, then end its descendants, which may still use its pipes."""
        await process.wait()
        self._kill(process)

    async def _read_errors(self, err: asyncio.StreamReader) -> None:
        """Read standard error continuously, so that its pipe never fills."""
        try:
            while piece := await err.read(_CHUNK):
                self._errors.feed(piece)
        finally:
            self._errors.end()

    def give_up(self, reason: str) -> None:
        """End the process. `reason` is the result of `ended`."""
        self._end(reason)
        if self._process is not None:
            self._kill(self._process)

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    @staticmethod
    def _kill(process: asyncio.subprocess.Process, number: signal.Signals = signal.SIGTERM) -> None:
        """Make the launcher end all processes.

        If the launcher has ended, kill its process group.
        """
        with suppress(ProcessLookupError, PermissionError):
            if process.returncode is None and number is signal.SIGTERM:
                process.send_signal(number)
            else:
                if process.returncode is None:
                    process.kill()  # a process that has just started is no group leader yet
                os.killpg(process.pid, signal.SIGKILL)
