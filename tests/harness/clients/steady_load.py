"""Constant load of all kinds of calls over HTTP, with the result of every call."""

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from harness.clients.mcp_client import JSON

PATIENCE = 30.0  # timeout of one call in seconds
# Errors of an ingress that is killed during a call.
BROKEN = (OSError, EOFError, asyncio.IncompleteReadError)
# Twenty calls: paid and free, fast and slow, and a program that makes two calls.
KINDS = ("count",) * 8 + ("wait",) * 6 + ("free",) * 5 + ("program",)
PROGRAM = "result = echo.count(id='{id}.a') + ' ' + echo.count(id='{id}.b')"
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `trace` is the trace id of its events."""

    id: str
    kind: str
    trace: str

    @property
    def body(self) -> bytes:
        """The request."""
        name, arguments, _ = self._form()
        meta = {"traceparent": f"00-{self.trace}-00000000000000aa-01"}
        params = {"name": name, "arguments": arguments, "_meta": meta}
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return json.dumps(request).encode()

    @property
    def answer(self) -> str:
        """The expected response."""
        return self._form()[2]

    def _form(self) -> tuple[str, dict[str, object], str]:
        if self.kind == "program":
            return (
                "executeToolCode",
                {"code": PROGRAM.format(id=self.id)},
                f"{self.id}.a {self.id}.b",
            )
        if self.kind == "wait":
            return "echo__wait", {"id": self.id, "seconds": 0.02}, self.id
        return f"{'free' if self.kind == 'free' else 'echo'}__count", {"id": self.id}, self.id


@dataclass(frozen=True, slots=True)
class Ended:
    """A call with the expected response. `began` and `at` are monotonic seconds."""

    call: Call
    began: float
    at: float


@dataclass
class Load:
    """A number of calls per second to the current `endpoint`."""

    endpoint: Callable[[], str]
    key: str  # a key that uses tools
    coder: str  # a key in code mode
    rate: float
    kinds: tuple[str, ...] = KINDS
    run: str = field(default_factory=lambda: f"run{next(_numbers)}")
    succeeded: list[Ended] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)  # the first one of each code
    wrong: list[str] = field(default_factory=list)
    broken: int = 0
    causes: list[str] = field(default_factory=list)  # of the broken calls
    troubled: list[float] = field(default_factory=list)  # when unsuccessful calls began
    made: int = 0
    _idle: dict[str, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = field(
        default_factory=dict
    )
    _stop: bool = False

    def stop(self) -> None:
        """Make no more calls. Calls in progress continue."""
        self._stop = True

    async def work(self) -> None:
        """Make calls until `stop`, and wait for the last response."""
        tasks: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        while not self._stop:
            await asyncio.sleep(max(0.0, began + self.made / self.rate - time.monotonic()))
            task = asyncio.create_task(self._one(self.made))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            self.made += 1
            await self._drop_ended()
        await asyncio.gather(*tasks)
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        for streams in self._idle.values():
            while streams:
                await _closed(streams.pop()[1])

    async def _drop_ended(self) -> None:
        """Close the idle connections that their server has closed."""
        for idle in list(self._idle.values()):
            ended = [streams for streams in idle if streams[0].at_eof()]
            for streams in ended:
                idle.remove(streams)
            for _, writer in ended:
                await _closed(writer)

    async def _one(self, number: int) -> None:
        kind = self.kinds[number % len(self.kinds)]
        call = Call(f"{self.run}.{number}", kind, secrets.token_hex(16))
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                result = await self.answer_of(call)
        except (*BROKEN, TimeoutError) as error:
            self.broken += 1
            self.causes.append(f"{call.id}: {error!r}")
            self.troubled.append(began)
            return
        if "error" in result:
            code = result["error"]["data"]["code"]
            self.failed[code] += 1
            self.messages.setdefault(code, str(result["error"]))
        elif result["result"].get("isError"):
            self.failed["is_error"] += 1
        elif (message := str(result["result"]["content"][0]["text"])) != call.answer:
            self.wrong.append(f"{call.answer!r} was answered with {message!r}")
        else:
            self.succeeded.append(Ended(call, began, time.monotonic()))
            return
        self.troubled.append(began)

    async def answer_of(self, call: Call) -> dict[str, Any]:
        """Return the response to one call, sent on an idle connection."""
        target = self.endpoint()
        parts, idle = urlsplit(target), self._idle.setdefault(target, [])
        streams = idle.pop() if idle else await asyncio.open_connection(parts.hostname, parts.port)
        reader, writer = streams
        try:
            writer.write(self._request(parts.path, parts.netloc, call))
            result, closes = await _answer(reader)
        except BaseException:
            await _closed(writer)
            raise
        if closes:
            await _closed(writer)
        else:
            idle.append(streams)
        return result

    def _request(self, path: str, host: str, call: Call) -> bytes:
        key = self.coder if call.kind == "program" else self.key
        fields = {**JSON, "Host": host, "Authorization": f"Bearer {key}"}
        fields["MCP-Protocol-Version"] = "2025-06-18"
        fields["Content-Length"] = str(len(call.body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + call.body


async def _answer(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bool]:
    """Return the JSON of a response, whose body has a length or is chunked.

    The second value is whether the server closes the connection after it.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    if "content-length:" in head:
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        body = await reader.readexactly(int(length))
    else:
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).strip() or b"0", 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    parsed: dict[str, Any] = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
    return parsed, "connection: close" in head


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
