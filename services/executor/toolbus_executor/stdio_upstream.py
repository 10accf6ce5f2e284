"""An upstream over stdio: one JSON message a line, ids multiplexed, in either era."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamFaultError
from toolbus_executor import wire
from toolbus_executor.child import Child
from toolbus_executor.upstream import Described, OnProgress

PROBE_SECONDS = 5.0
METHOD_NOT_FOUND = -32601


class StdioUpstream:
    """One server process."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: str,
        on_list_changed: Callable[[], None],
    ) -> None:
        self._command = command
        self._environment = environment
        self._cwd = cwd or None
        self._on_list_changed = on_list_changed
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[wire.Incoming]] = {}
        self._progress: dict[int, OnProgress] = {}
        self._child = Child(self._take)
        self._modern = True

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._child.pid

    async def open(self) -> Described:
        """Start the process; ask it server/discover, and shake hands if it does not know that."""
        await self._start()
        described = await self._discover()
        if described is None:
            self._modern = False
            if self._child.ended.done():
                # Some servers end when the first thing they hear is no handshake.
                await self._child.close()
                self._child = Child(self._take)
                await self._start()
            return await self._initialize()
        if described.lists_change:
            # Answered when the server ends the subscription, which may be never: nobody waits.
            self._child.write(wire.listen_body(next(self._numbers)))
        return described

    async def list_page(self, cursor: str | None) -> dict[str, Any]:
        """One page of tools/list."""
        params: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
        message = await self._ask("tools/list", params)
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
                told = {"requestId": number}
                self._child.write(wire.notification_body("notifications/cancelled", told))
            raise
        finally:
            self._progress.pop(number, None)
        return wire.result_of(message)

    async def wait_lost(self) -> str:
        """Wait for the process's end."""
        return f"Its process ended: {await asyncio.shield(self._child.ended)}."

    async def close(self) -> None:
        """End the process."""
        await self._child.close()

    async def _start(self) -> None:
        self._child.ended.add_done_callback(self._fail_all)
        await self._child.start(self._command, self._environment, self._cwd)

    async def _discover(self) -> Described | None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return wire.discovered(await self._ask("server/discover", {}))
        except (TimeoutError, UpstreamFaultError, UpstreamDeadError):
            return None

    async def _initialize(self) -> Described:
        number = next(self._numbers)
        described = wire.greeted(await self._send(number, wire.initialize_body(number)))
        self._child.write(wire.notification_body("notifications/initialized"))
        return described

    async def _ask(self, method: str, params: dict[str, Any]) -> wire.Incoming:
        number = next(self._numbers)
        body = wire.request_body(number, method, params, modern=self._modern)
        return await self._send(number, body)

    async def _send(self, number: int, body: bytes) -> wire.Incoming:
        future: asyncio.Future[wire.Incoming] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._child.write(body)
            return await future
        finally:
            del self._waiting[number]

    def _fail_all(self, ended: asyncio.Future[str]) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(
                    UpstreamDeadError(f"The upstream's process ended: {ended.result()}.")
                )

    def _take(self, line: bytes) -> None:
        try:
            message = wire.read(line)
        except UpstreamFaultError:
            return  # servers print banners; a line that is no message answers nothing
        if message.method == "notifications/progress":
            self._take_progress(message)
        elif message.method == "notifications/tools/list_changed":
            self._on_list_changed()
        elif message.method and message.id is not None:
            self._refuse(message)
        elif isinstance(message.id, int):
            future = self._waiting.get(message.id)
            if future is not None and not future.done():
                future.set_result(message)

    def _take_progress(self, message: wire.Incoming) -> None:
        told = wire.progress_of(message)
        if told is None or not isinstance(told[0], int):
            return
        listener = self._progress.get(told[0])
        if listener is not None:
            listener(told[1])

    def _refuse(self, message: wire.Incoming) -> None:
        """Answer a server's own request: nothing was declared, so nothing is offered."""
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message.id}
        if message.method == "ping":
            answer["result"] = {}
        else:
            answer["error"] = {"code": METHOD_NOT_FOUND, "message": "Toolbus does not offer this."}
        with suppress(ToolbusError):
            self._child.write(msgspec.json.encode(answer))
