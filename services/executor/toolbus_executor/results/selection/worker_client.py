"""Client of the selection worker. It kills a worker that takes too long, and starts a new one."""

import asyncio
import os
import signal
import sys
from contextlib import suppress

import msgspec

from toolbus_common.errors import InvalidError, OverloadedError
from toolbus_common.process.tethered import tethered
from toolbus_executor.results.selection.worker import (
    LARGEST_SELECTION,
    SelectionReply,
    SelectionRequest,
)

SECONDS = 20.0  # timeout of one evaluation; its processor time has a stricter limit
WAIT_SECONDS = 10.0  # maximum time in the queue
MAX_WAITING = 32
LARGEST_DOCUMENT = 16 << 20  # bytes
_BEGIN_SECONDS = 30.0  # for the start of the process on a busy machine
_LIMITS = {"AS": 1 << 30, "CORE": 0, "NOFILE": 64}
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL")


class Selector:
    """The worker process of an executor, for all servers. It is started on first use."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._process: asyncio.subprocess.Process | None = None

    async def select(self, expression: str, document: bytes) -> bytes:
        """Return the result of an expression on a JSON document, as JSON.

        Raises:
            InvalidError: the selection failed. The reason becomes a part of the note in the result.
            OverloadedError: too many selections are waiting.

        """
        if len(document) > LARGEST_DOCUMENT:
            raise InvalidError(f"only results up to {LARGEST_DOCUMENT} bytes can be selected from")
        if self._waiting >= MAX_WAITING:
            raise OverloadedError("Too many selections are in progress; retry shortly.")
        line = msgspec.json.encode(SelectionRequest(expression, msgspec.Raw(document)))
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError as error:
            raise OverloadedError(
                "No worker became free because other selections take long; retry shortly."
            ) from error
        finally:
            self._waiting -= 1
        try:
            reply = await self._evaluate(line.replace(b"\n", b" "))
        finally:
            self._turn.release()
        if reply.why:
            raise InvalidError(reply.why)
        return msgspec.json.encode(reply.found)

    async def close(self) -> None:
        """Kill the worker process, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if process.stdin is not None:
                process.stdin.close()
                with suppress(ConnectionError):
                    await process.stdin.wait_closed()

    async def _evaluate(self, line: bytes) -> SelectionReply:
        try:
            process = await self._start()
            async with asyncio.timeout(SECONDS):
                return await _exchange_line(process, line)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise InvalidError(
                "it takes too much time or memory; use a simpler expression"
            ) from error
        except BaseException:  # a late reply must not be read as the next reply
            await self.close()
            raise

    async def _start(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            command = [sys.executable, "-m", "toolbus_executor.results.selection.worker"]
            self._process = await asyncio.create_subprocess_exec(
                *tethered(command, limits=_LIMITS),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                limit=2 * LARGEST_SELECTION,
            )
            async with asyncio.timeout(_BEGIN_SECONDS):
                await _exchange_line(
                    self._process, msgspec.json.encode(SelectionRequest("@", None))
                )
        return self._process


async def _exchange_line(process: asyncio.subprocess.Process, line: bytes) -> SelectionReply:
    assert process.stdin is not None  # noqa: S101 - requested at its start
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(line + b"\n")
    await process.stdin.drain()
    return msgspec.json.decode(await process.stdout.readuntil(b"\n"), type=SelectionReply)
