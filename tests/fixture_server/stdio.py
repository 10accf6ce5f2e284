"""JSON lines over standard input and output, both families on one pipe."""

import asyncio
import json
import sys
from typing import Any

from .methods import Fixture
from .request_checks import check_meta, check_version, family_of
from .sessions import Session, modern_call, run
from .stream import Shared
from .wire import METHOD_NOT_FOUND, PARSE_ERROR, Json, ProtocolFamily, RefusedError, dump, failure

_LONGEST_LINE = 1 << 24


class Pipe:
    """The only client of a server over stdio."""

    def __init__(self, fixture: Fixture, families: frozenset[ProtocolFamily]) -> None:
        self._fixture = fixture
        self._eras = families
        self._out = Shared("stdio")
        self._session = Session(fixture, "stdio", self._out)
        self._running: dict[Any, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Answer until the input ends."""
        reader = asyncio.StreamReader(limit=_LONGEST_LINE)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        writing = asyncio.create_task(self._write())
        while line := await reader.readline():
            try:
                self._take(json.loads(line))
            except ValueError:
                self._out.put(failure(None, RefusedError(PARSE_ERROR, "Parse error")))
        writing.cancel()

    def _take(self, message: Json) -> None:
        if "method" not in message or "id" not in message:
            self._session.handle(message)
            if message.get("method") == "notifications/cancelled":
                running = self._running.get((message.get("params") or {}).get("requestId"))
                if running is not None:
                    running.cancel()
            return
        try:
            self._begin(message)
        except RefusedError as refusal:
            self._out.put(failure(message["id"], refusal))

    def _begin(self, message: Json) -> None:
        if self._family(message) is ProtocolFamily.LEGACY:
            self._session.begin(message, self._out, {})
            return
        params = message.get("params") or {}
        if not self._fixture.lax:
            check_meta(params.get("_meta") or {})
            check_version(params["_meta"])
        call = modern_call(self._fixture, message, self._out, {})
        request_id = message["id"]
        task = asyncio.create_task(run(self._fixture, call, request_id, self._out))
        self._running[request_id] = task
        task.add_done_callback(lambda _: self._running.pop(request_id, None))

    def _family(self, message: Json) -> ProtocolFamily:
        family = family_of(message, {})
        if family in self._eras:
            return family
        if family is ProtocolFamily.MODERN or message["method"] == "initialize":
            method = message["method"]
            raise RefusedError(METHOD_NOT_FOUND, f"Method not found: {method}")
        return ProtocolFamily.MODERN

    async def _write(self) -> None:
        async for _, message in self._out.read(0, idle=3600):
            if message is not None:
                sys.stdout.buffer.write(dump(message) + b"\n")
                sys.stdout.buffer.flush()
