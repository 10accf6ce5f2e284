"""The service's side of a process that starts runs: the zygote, or the host of Python workers.

Orders go out; back come a handle on the new process with a socket to it, and later its end. When
the launcher itself dies its runs have ended, and the next order starts another.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.concurrency import end

LARGEST_WORD = 4096
READY_WITHIN = 30.0
FULL_FOR = 0.001
UNDER_WAY = 0.01  # seconds in which most runs that call nothing have ended
KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH",)


class UnavailableError(Exception):
    """Programs cannot be run here; the sentence says why."""


@dataclass(slots=True)
class Launched:
    """One run's process: the socket to it, a handle to kill it by, and how it ended."""

    socket: socket.socket
    handle: int
    ended: asyncio.Future[int | None]

    @property
    def cpu(self) -> float:
        """Seconds of processor the process has used, as the kernel counts them; 0 if it is gone."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = words(f"/proc/self/fdinfo/{self.handle}")
            threads = f"/proc/{int(fields[fields.index(b'Pid:') + 1])}/task"
            each = (words(f"{threads}/{one}/schedstat")[0] for one in os.listdir(threads))  # noqa: PTH208
            return sum(map(int, each)) / 1e9
        return 0.0

    def kill(self) -> None:
        """End the process, if it has not ended. A handle never names another process."""
        if self.handle < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        os.close(self.handle)
        self.socket.close()
        self.handle = -1


def words(path: str) -> list[bytes]:
    """What the kernel says there. Every run asks, so it is asked in three calls."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, LARGEST_WORD).split()
    finally:
        os.close(descriptor)


Ordered = asyncio.Future[Launched | None]


@dataclass(slots=True)
class Launcher:
    """A process of ours that starts runs on order, and keeps a few started before they are."""

    module: str
    usual: dict[str, int]
    spares: int
    arguments: tuple[str, ...] = ()
    spare: deque[Ordered] = field(default_factory=deque)
    ordered: dict[int, Ordered] = field(default_factory=dict)
    runs: dict[int, Launched] = field(default_factory=dict)
    number: int = 0
    words: int = 0
    process: subprocess.Popen[bytes] | None = None
    control: socket.socket | None = None
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: asyncio.Future[dict[str, Any]] | None = None
    filling: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, Any]:
        """Start the process; what it says of itself when it is ready."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        self.control, self.ready = ours, loop.create_future()
        with theirs:
            self.process = subprocess.Popen(  # noqa: ASYNC220, S603 - quick; no name of a shell
                [sys.executable, "-I", "-m", self.module, *self.arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ},
            )
        loop.add_reader(ours.fileno(), self.hear, ours)
        try:
            return await asyncio.wait_for(asyncio.shield(self.ready), READY_WITHIN)
        except TimeoutError:
            await self.close()
            raise UnavailableError(f"{self.module} did not become ready.") from None

    async def close(self) -> None:
        """End it, and every run it started."""
        if self.filling is not None:
            await end(self.filling)
        self.lost()
        process, self.process = self.process, None
        if process:
            process.kill()
            await asyncio.get_running_loop().run_in_executor(None, process.wait)

    def lost(self) -> None:
        """The process is gone, or about to be: its runs have ended."""
        control, self.control = self.control, None
        if control:
            asyncio.get_running_loop().remove_reader(control.fileno())
            control.close()
        if self.ready and not self.ready.done():
            self.ready.set_exception(UnavailableError(f"{self.module} ended before it was ready."))
            self.ready.exception()  # whoever waited may have left: nobody need be told
        self.spare.clear()
        for order in self.ordered.values():
            if not order.done():
                order.set_result(None)
        self.ordered.clear()
        runs, self.runs = self.runs, {}
        for run in runs.values():
            run.kill()
            if not run.ended.done():
                run.ended.set_result(None)

    def hear(self, control: socket.socket) -> None:
        """Whatever the process has said by now."""
        while control is self.control:
            try:
                word, handles, _, _ = socket.recv_fds(control, LARGEST_WORD, 2)
            except BlockingIOError:
                return
            except OSError:
                word, handles = b"", []
            if word:
                self.heard(json.loads(word), handles)
            else:
                self.lost()

    def heard(self, told: dict[str, Any], handles: list[int]) -> None:
        """One word: ready, started with a handle and a socket, or ended with a status."""
        self.words += 1
        if "ready" in told and self.ready:
            self.ready.set_result(told["ready"])
        elif "started" in told:
            self.started(told["started"], *handles)
        elif "ended" in told:
            self.ended(told["ended"], told["status"])

    def started(self, number: int, handle: int, descriptor: int) -> None:
        """A process is there; if nobody waits for it any longer, not for long."""
        ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        launched = Launched(socket.socket(fileno=descriptor), handle, ended)
        self.runs[number] = launched
        order = self.ordered.pop(number, None)
        if order and not order.done():
            order.set_result(launched)
        else:
            launched.kill()

    def ended(self, number: int, status: int | None) -> None:
        """A process has ended, or could not be started."""
        run, order = self.runs.pop(number, None), self.ordered.pop(number, None)
        if run and not run.ended.done():
            run.ended.set_result(status)
        if order and not order.done():
            order.set_result(None)

    async def launch(self, **order: int) -> Launched:
        """A process for a run: one that waits already, if it is held to the usual limits."""
        async with self.starting:
            if self.control is None:
                await self.close()
                await self.start()
        while order == self.usual and self.spare:
            launched = await self.spare.popleft()
            if launched and not launched.ended.done():
                self.fill_later()
                return launched
        ordered = await self.order(order)
        launched = await self.waited(ordered)
        if launched is None:
            ordered.cancel()
            raise UnavailableError("No process could be started for the program.")
        return launched

    async def waited(self, ordered: Ordered) -> Launched | None:
        """What was ordered, as long as anything comes: a launcher that is busy is not stuck."""
        while not ordered.done():
            before = self.words
            await asyncio.wait((ordered,), timeout=READY_WITHIN)
            if self.words == before:
                break
        return ordered.result() if ordered.done() else None

    def fill_later(self) -> None:
        """Order spares when the run that took one is well under way: it is waited for, not they."""
        if self.filling is None or self.filling.done():
            self.filling = asyncio.create_task(self.filled())

    async def filled(self) -> None:
        """Spares, after a while."""
        await asyncio.sleep(UNDER_WAY)
        await self.fill()

    async def fill(self) -> None:
        """Order as many spare processes as are kept."""
        while len(self.spare) < self.spares and self.control:
            self.spare.append(await self.order(self.usual))

    async def order(self, wanted: dict[str, int]) -> Ordered:
        """Order a process; wait a little where the launcher is behind."""
        self.number += 1
        number, ordered = self.number, asyncio.get_running_loop().create_future()
        self.ordered[number] = ordered
        word = json.dumps({"run": number, **wanted}).encode()
        while self.control and not ordered.done():
            try:
                self.control.send(word)
            except BlockingIOError:
                await asyncio.sleep(FULL_FOR)
            except OSError:
                self.lost()
            else:
                return ordered
        if not ordered.done():
            ordered.set_result(None)
        return ordered
