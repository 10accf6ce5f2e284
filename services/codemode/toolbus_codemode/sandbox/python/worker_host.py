"""Host process that starts hardened Python workers on request; each worker runs one program.

The workers are a binary of another project, and their client is native code. The client therefore
runs in this process and not in the service; if it crashes, the service starts another host.
"""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pydantic_monty
from pydantic_monty._binary import find_monty_binary

from toolbus_codemode.sandbox.linux import hardening
from toolbus_codemode.sandbox.python import worker_launch
from toolbus_codemode.sandbox.python.engine import Run, limits
from toolbus_common.process import landlock

LARGEST_ORDER = 4096
MAX_WORKERS = 512
ADDRESS_SPACE = 1 << 30  # of the process; the engine limits its heap itself
CPU = 30
EXECUTABLE = 0x10  # MFD_EXEC, since Linux 6.3; older kernels reject it and do not need it


def launcher(*, without_seccomp: bool) -> tuple[int, Path]:
    """Create a script that the client runs as the worker's binary; return its descriptor and path.

    The script is an anonymous file, so it disappears when this process ends.
    """
    seccomp = "without-seccomp" if without_seccomp else "seccomp"
    words = [
        sys.executable, "-I", "-S", worker_launch.__file__, str(Path(landlock.__file__).parents[2]),
        find_monty_binary(), str(ADDRESS_SPACE), str(CPU), seccomp,
    ]  # fmt: skip
    try:
        script = os.memfd_create("worker", os.MFD_CLOEXEC | EXECUTABLE)
    except OSError:
        script = os.memfd_create("worker", os.MFD_CLOEXEC)
    os.write(script, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'.encode())
    return script, Path(f"/proc/{os.getpid()}/fd/{script}")


def confined(pid: int) -> dict[str, bool]:
    """Return the protections of a worker, as the kernel reports them."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    return {
        "seccomp": status.get("Seccomp") == "2",
        "no_new_privs": status.get("NoNewPrivs") == "1",
        "user": status["Uid"].split()[0] != "0",
        "landlock": landlock.version(hardening.libc) > 0,
    }


class Host:
    """Server of workers, with the same protocol as the zygote."""

    def __init__(self, pool: pydantic_monty.AsyncMonty, control: socket.socket) -> None:
        self.pool = pool
        self.control = control
        self.runs: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve until the service ends."""
        loop = asyncio.get_running_loop()
        while order := await loop.sock_recv(self.control, LARGEST_ORDER):
            request = json.loads(order)
            task = asyncio.create_task(self.run(**request))
            self.runs.add(task)
            task.add_done_callback(self.runs.discard)

    def send(self, word: dict[str, Any], *descriptors: int) -> None:
        """Send one small message to the service."""
        encoded = [json.dumps(word).encode()]
        with contextlib.suppress(OSError):
            if descriptors:
                socket.send_fds(self.control, encoded, list(descriptors))
            else:
                self.control.send(encoded[0])

    async def run(self, run: int, memory: int, cpu: int) -> None:
        """Start a worker, run one program in it, and report the end to the service."""
        modules: dict[str, pydantic_monty.ExternalModule] = {}
        try:
            checkout = self.pool.checkout(limits=limits(memory, cpu), external_modules=modules)
            async with checkout as session:
                await self.held(run, session, modules)
        except (pydantic_monty.MontyError, OSError, TimeoutError):
            pass  # killed by the service, or not started; reported as ended below
        finally:
            self.send({"ended": run, "status": None})

    async def held(
        self,
        run: int,
        session: pydantic_monty.AsyncMontySession,
        modules: dict[str, pydantic_monty.ExternalModule],
    ) -> None:
        """Send the worker's handles to the service, and run the program that it returns."""
        if session.worker_pid is None:
            return
        ours, theirs = socket.socketpair()
        handle = os.pidfd_open(session.worker_pid)
        try:
            self.send({"started": run}, handle, theirs.fileno())
        finally:
            os.close(handle)
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            await Run(session, modules, reader, writer).run()
        finally:
            writer.transport.abort()

    async def probed(self) -> dict[str, bool]:
        """Start a worker and return its protections; empty if it does not work."""
        async with self.pool.checkout() as session:
            if await session.feed_run("1 + 1") != 1 + 1 or session.worker_pid is None:
                return {}
            return confined(session.worker_pid)


async def main() -> None:
    """Start the pool, report the protections, then serve the control socket at standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ends with the service, not on Ctrl-C
    control = socket.socket(fileno=os.dup(0))
    control.settimeout(0)
    separate = hardening.unshare()
    _, script = launcher(without_seccomp="--without-seccomp" in sys.argv)
    async with pydantic_monty.AsyncMonty(
        binary_path=script,
        min_processes=0,
        max_processes=MAX_WORKERS,
        max_checkouts_per_worker=1,
    ) as pool:
        host = Host(pool, control)
        host.send({"ready": {"namespaces": separate, **await host.probed()}})
        await host.serve()
        for run in tuple(host.runs):
            run.cancel()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
