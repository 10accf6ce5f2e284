"""Client of a process that starts runs: the zygote, or the host of Python workers.

The client sends orders. It receives a pidfd and a socket of each new process, and later the exit of
that process. If the launcher process dies, all its runs end, and the next order starts another
launcher.
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
SPARE_DELAY = 0.01  # seconds in which most runs without calls end
KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH",)


class UnavailableError(Exception):
    """Programs cannot run on this host; the message contains the reason."""


@dataclass(slots=True)
class Launched:
    """Process of a run: its socket, its pidfd, and its exit status."""

    socket: socket.socket
    handle: int
    ended: asyncio.Future[int | None]

    @property
    def cpu(self) -> float:
        """Used processor time in seconds, as the kernel counts it; 0 if the process ended."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = words(f"/proc/self/fdinfo/{self.handle}")
            threads = f"/proc/{int(fields[fields.index(b'Pid:') + 1])}/task"
            each = (words(f"{threads}/{one}/schedstat")[0] for one in os.listdir(threads))  # noqa: PTH208
            return sum(map(int, each)) / 1e9
        return 0.0

    def kill(self) -> None:
        """Kill the process if it runs; the pidfd cannot refer to another process."""
        if self.handle < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        os.close(self.handle)
        self.socket.close()
        self.handle = -1


def words(path: str) -> list[bytes]:
    """Return the words of a file in /proc, by few system calls: each run reads such a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, LARGEST_WORD).split()
    finally:
        os.close(descriptor)


Ordered = asyncio.Future[Launched | None]


@dataclass(slots=True)
class Launcher:
    """Client of a launcher process, with a few spare processes started in advance."""

    module: str
    default: dict[str, int]
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
        """Start the launcher process and return the protections that it reports.

        Raises `UnavailableError` if it does not become ready.
        """
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        self.control, self.ready = ours, loop.create_future()
        with theirs:
            self.process = subprocess.Popen(  # noqa: ASYNC220, S603 - quick; no shell
                [sys.executable, "-I", "-m", self.module, *self.arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ},
            )
        loop.add_reader(ours.fileno(), self.receive, ours)
        try:
            return await asyncio.wait_for(asyncio.shield(self.ready), READY_WITHIN)
        except TimeoutError:
            await self.close()
            raise UnavailableError(f"{self.module} did not become ready.") from None

    async def close(self) -> None:
        """End the launcher process and all its runs."""
        if self.filling is not None:
            await end(self.filling)
        self.lost()
        process, self.process = self.process, None
        if process:
            process.kill()
            await asyncio.get_running_loop().run_in_executor(None, process.wait)

    def lost(self) -> None:
        """Clean up after the launcher process ended: all its runs have ended."""
        control, self.control = self.control, None
        if control:
            asyncio.get_running_loop().remove_reader(control.fileno())
            control.close()
        if self.ready and not self.ready.done():
            self.ready.set_exception(UnavailableError(f"{self.module} ended before it was ready."))
            self.ready.exception()  # marks the error as retrieved, because the waiter may be gone
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

    def receive(self, control: socket.socket) -> None:
        """Handle all messages that can be read without waiting."""
        while control is self.control:
            try:
                word, handles, _, _ = socket.recv_fds(control, LARGEST_WORD, 2)
            except BlockingIOError:
                return
            except OSError:
                word, handles = b"", []
            if word:
                self.handle(json.loads(word), handles)
            else:
                self.lost()

    def handle(self, message: dict[str, Any], handles: list[int]) -> None:
        """Handle one message: ready, started with a pidfd and a socket, or ended with a status."""
        self.words += 1
        if "ready" in message and self.ready:
            self.ready.set_result(message["ready"])
        elif "started" in message:
            self.started(message["started"], *handles)
        elif "ended" in message:
            self.ended(message["ended"], message["status"])

    def started(self, number: int, handle: int, descriptor: int) -> None:
        """Record a started process; kill it if its order was cancelled."""
        ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        launched = Launched(socket.socket(fileno=descriptor), handle, ended)
        self.runs[number] = launched
        order = self.ordered.pop(number, None)
        if order and not order.done():
            order.set_result(launched)
        else:
            launched.kill()

    def ended(self, number: int, status: int | None) -> None:
        """Record that a process ended or could not be started."""
        run, order = self.runs.pop(number, None), self.ordered.pop(number, None)
        if run and not run.ended.done():
            run.ended.set_result(status)
        if order and not order.done():
            order.set_result(None)

    async def launch(self, **order: int) -> Launched:
        """Return a process for a run; with the default limits, it can be a spare process.

        Raises `UnavailableError` if no process could be started.
        """
        async with self.starting:
            if self.control is None:
                await self.close()
                await self.start()
        while order == self.default and self.spare:
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
        """Wait for an order while the launcher still sends messages; return None if it stops."""
        while not ordered.done():
            before = self.words
            await asyncio.wait((ordered,), timeout=READY_WITHIN)
            if self.words == before:
                break
        return ordered.result() if ordered.done() else None

    def fill_later(self) -> None:
        """Order spare processes later, so that this does not delay the current run."""
        if self.filling is None or self.filling.done():
            self.filling = asyncio.create_task(self.fill_after_delay())

    async def fill_after_delay(self) -> None:
        """Order spare processes after `SPARE_DELAY` seconds."""
        await asyncio.sleep(SPARE_DELAY)
        await self.fill()

    async def fill(self) -> None:
        """Order spare processes up to the configured number."""
        while len(self.spare) < self.spares and self.control:
            self.spare.append(await self.order(self.default))

    async def order(self, wanted: dict[str, int]) -> Ordered:
        """Order a process; wait briefly if the launcher's queue is full."""
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
