"""An upstream over stdio: a tethered process, one JSON message a line, ids multiplexed."""

import asyncio
import itertools
import logging
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamFaultError
from toolbus_common.logs import redacted
from toolbus_common.tether import tethered
from toolbus_executor import wire
from toolbus_executor.http_upstream import described
from toolbus_executor.upstream import Described, OnProgress

log = logging.getLogger(__name__)

LONGEST_LINE = 7 * 1024 * 1024
LIMITS = {"CORE": 0, "NOFILE": 4096}
PROBE_SECONDS = 5.0
LEAVE_SECONDS = 2.0
LAST_WORDS = 20  # lines of standard error kept for the reason


class StdioUpstream:
    """One server process."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: str,
        on_list_changed: Any,
    ) -> None:
        self._command = command
        self._environment = dict(environment)
        self._cwd = cwd or None
        self._on_list_changed = on_list_changed
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[wire.Incoming]] = {}
        self._progress: dict[int, OnProgress] = {}
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._modern = True

    async def open(self) -> Described:
        """Start the process; ask it server/discover, and shake hands if it does not know that."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *tethered(self._command, limits=LIMITS),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                cwd=self._cwd,
                limit=LONGEST_LINE,
            )
        except OSError as error:
            raise UpstreamDeadError(f"Its process cannot be started: {error.strerror}.") from error
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._listen())]
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                message = await self._ask("server/discover", {}, modern=True)
            told = None if message.error else msgspec.json.decode(wire.result_of(message))
        except (TimeoutError, UpstreamFaultError):
            told = None
        if told and wire.MODERN in told.get("supportedVersions", ()):
            return described(told, "modern", wire.MODERN)
        return await self._initialize()

    async def list_page(self, cursor: str | None) -> dict[str, Any]:
        """One page of tools/list."""
        params: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
        message = await self._ask("tools/list", params, modern=self._modern)
        result: dict[str, Any] = msgspec.json.decode(wire.result_of(message))
        return result

    async def call(
        self, call: CallAdmitted, seconds: float, on_progress: OnProgress | None
    ) -> bytes:
        """Call a tool; when we stop waiting, the server is told."""
        number = next(self._numbers)
        if on_progress is not None:
            self._progress[number] = on_progress
        try:
            async with asyncio.timeout(seconds):
                body = wire.call_body(call, number, modern=self._modern)
                message = await self._send(number, body)
        except (TimeoutError, asyncio.CancelledError):
            with suppress(ToolbusError):
                self._write(
                    wire.notification_body("notifications/cancelled", {"requestId": number})
                )
            raise
        finally:
            self._progress.pop(number, None)
        return wire.result_of(message)

    async def wait_lost(self) -> str:
        """Wait for the process's end."""
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """Close its input, give it a moment, then end its whole group."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _initialize(self) -> Described:
        self._modern = False
        params = {"protocolVersion": wire.LEGACY, "capabilities": {}, "clientInfo": wire.CLIENT}
        message = await self._ask("initialize", params, modern=False)
        told = msgspec.json.decode(wire.result_of(message))
        self._write(wire.notification_body("notifications/initialized"))
        return described(told, "legacy", str(told.get("protocolVersion", wire.LEGACY)))

    async def _ask(self, method: str, params: dict[str, Any], *, modern: bool) -> wire.Incoming:
        number = next(self._numbers)
        return await self._send(number, wire.request_body(number, method, params, modern=modern))

    async def _send(self, number: int, body: bytes) -> wire.Incoming:
        future: asyncio.Future[wire.Incoming] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._write(body)
            return await future
        finally:
            del self._waiting[number]

    def _write(self, body: bytes) -> None:
        process = self._process
        if process is None or process.stdin is None or self._lost.done():
            raise UpstreamDeadError("Its process is not running.", sent=False)
        # The bus's largest message bounds what may wait here, the bulkhead how many.
        process.stdin.write(body + b"\n")

    async def _read(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        reason = ""
        try:
            while line := await process.stdout.readline():
                self._take(line)
        except ValueError:
            reason = f"it wrote a line of more than {LONGEST_LINE} bytes"
            os.killpg(process.pid, signal.SIGKILL)
        code = await process.wait()
        words = redacted(" / ".join(list(self._last_words)[-3:]))[:300]
        reason = reason or f"it exited with {code}" + (f": {words}" if words else "")
        self._lost.set_result(f"Its process ended: {reason}.")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(UpstreamDeadError(f"The upstream's process ended: {reason}."))

    def _take(self, line: bytes) -> None:
        try:
            message = wire.read(line)
        except UpstreamFaultError:
            return  # servers print banners; a line that is no message answers nothing
        if message.method == "notifications/progress":
            self._take_progress(bytes(message.params))
        elif message.method == "notifications/tools/list_changed":
            self._on_list_changed()
        elif message.method and message.id is not None:
            self._refuse(message)
        elif isinstance(message.id, int):
            future = self._waiting.get(message.id)
            if future is not None and not future.done():
                future.set_result(message)

    def _take_progress(self, params: bytes) -> None:
        token = msgspec.json.decode(params).get("progressToken")
        listener = self._progress.get(token) if isinstance(token, int) else None
        if listener is not None:
            listener(params)

    def _refuse(self, message: wire.Incoming) -> None:
        """Answer a server's own request: nothing was declared, so nothing is offered."""
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message.id}
        if message.method == "ping":
            answer["result"] = {}
        else:
            answer["error"] = {"code": -32601, "message": "Toolbus does not offer this."}
        with suppress(ToolbusError):
            self._write(msgspec.json.encode(answer))

    async def _listen(self) -> None:
        process = self._process
        if process is None or process.stderr is None:
            return
        with suppress(ValueError):
            while line := await process.stderr.readline():
                words = line.decode("utf-8", "replace").strip()[:500]
                self._last_words.append(words)
                log.debug("upstream.stderr", extra={"line": words})
