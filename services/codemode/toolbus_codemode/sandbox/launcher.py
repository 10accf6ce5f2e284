"""The room's side of a process that starts runs: the zygote, or the host of Python workers.

Orders go out with one end of a run's socket; back come a handle on the process and its end. When
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
from dataclasses import dataclass, field
from typing import Any

LARGEST_WORD = 4096
READY_WITHIN = 30.0
FULL_FOR = 0.001
KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "SYSTEMROOT")


class UnavailableError(Exception):
    """Programs cannot be run here; the sentence says why."""


@dataclass(slots=True)
class Launched:
    """One run's process: a handle to kill it by, and how it ended."""

    ended: asyncio.Future[int | None]
    handle: int | None = None
    unwanted: bool = False

    def took(self, handle: int) -> None:
        """The handle has come; if nobody wants the process any more, it ends now."""
        self.handle = handle
        if self.unwanted:
            self.kill()

    def kill(self) -> None:
        """End the process, if it has not ended. A handle never names another process."""
        self.unwanted = True
        if self.handle is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        os.close(self.handle)
        self.handle = None


@dataclass(slots=True)
class Launcher:
    """A process of ours that starts runs on order."""

    module: str
    arguments: tuple[str, ...] = ()
    runs: dict[int, Launched] = field(default_factory=dict)
    number: int = 0
    process: subprocess.Popen[bytes] | None = None
    control: socket.socket | None = None
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: asyncio.Future[dict[str, Any]] | None = None

    async def start(self) -> dict[str, Any]:
        """Start the process; what it says of itself when it is ready."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.control, self.ready = ours, loop.create_future()
        with theirs:
            self.process = subprocess.Popen(  # noqa: ASYNC220, S603 - quick; no name of a shell
                [sys.executable, "-I", "-m", self.module, *self.arguments],
                stdin=theirs,
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
        runs, self.runs = self.runs, {}
        for run in runs.values():
            run.kill()
            if not run.ended.done():
                run.ended.set_result(None)

    def hear(self, control: socket.socket) -> None:
        """Whatever the process has said by now."""
        while control is self.control:
            try:
                word, handles, _, _ = socket.recv_fds(control, LARGEST_WORD, 1)
            except BlockingIOError:
                return
            except OSError:
                word, handles = b"", []
            if word:
                self.heard(json.loads(word), handles)
            else:
                self.lost()

    def heard(self, told: dict[str, Any], handles: list[int]) -> None:
        """One word: ready, forked with a handle, or ended with a status."""
        if "ready" in told and self.ready:
            self.ready.set_result(told["ready"])
        elif "forked" in told and (run := self.runs.get(told["forked"])):
            run.took(handles.pop())
        elif "ended" in told and (run := self.runs.pop(told["ended"], None)):
            if not run.ended.done():
                run.ended.set_result(told["status"])
        for handle in handles:
            os.close(handle)

    async def launch(self, theirs: socket.socket, **order: int) -> Launched:
        """Order a run, and give it its end of the socket."""
        async with self.starting:
            if self.control is None:
                await self.close()
                await self.start()
        self.number += 1
        launched = Launched(asyncio.get_running_loop().create_future())
        self.runs[self.number] = launched
        word = json.dumps({"run": self.number, **order}).encode()
        await self.say(word, theirs)
        return launched

    async def say(self, word: bytes, theirs: socket.socket) -> None:
        """Send an order; wait a little where the process is behind."""
        while self.control:
            try:
                socket.send_fds(self.control, [word], [theirs.fileno()])
            except BlockingIOError:
                await asyncio.sleep(FULL_FOR)
            except OSError:
                self.lost()
            else:
                return
