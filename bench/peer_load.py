"""Closed-loop load of MCP tool calls on any gateway, in sessions or without, as JSON or SSE.

Usage, as its own process: `python bench/peer_load.py '{"url": …}'` prints one JSON object. Each
connection initializes a session, finds the tool and calls it. Each answer must contain the text of
its own request. Latencies are milliseconds.
"""

import asyncio
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import uvloop

VERSION = "2025-06-18"
WAIT_SECONDS = 60.0


@dataclass(slots=True)
class Plan:
    """The gateway, the end of the tool's name, the concurrency and the duration in seconds."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    tool: str = "echo"
    connections: int = 32
    seconds: float = 5.0
    warm_seconds: float = 1.0


class Client:
    """One connection to a gateway."""

    def __init__(self, plan: Plan, number: int) -> None:
        self._plan = plan
        self._parts = urlsplit(plan.url)
        self._number = number
        self._session = ""

    async def start(self) -> str:
        """Connect and initialize a session; return the name of the tool."""
        host, port = self._parts.hostname or "", self._parts.port or 80
        self._reader, self._writer = await asyncio.open_connection(host, port)
        info = {"name": "bench", "version": "1"}
        params = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": info}
        head, _ = await self._post("initialize", params, 1)
        self._session = _header(head, b"mcp-session-id")
        await self._post("notifications/initialized", {})
        _, body = await self._post("tools/list", {}, 2)
        names: list[str] = [each["name"] for each in _message(body)["result"]["tools"]]
        return next(name for name in names if name.endswith(self._plan.tool))

    async def call(self, tool: str, count: int) -> str:
        """Call the tool; return the answer if it is wrong, otherwise an empty text."""
        text = f"{self._number}-{count} bench"
        arguments = {"name": tool, "arguments": {"text": text}}
        _, body = await self._post("tools/call", arguments, count)
        result = _message(body).get("result", {})
        right = not result.get("isError") and result.get("content", [{}])[0].get("text") == text
        return "" if right else body.decode("latin-1")[:400]

    async def _post(
        self, method: str, params: Any, number: int | None = None
    ) -> tuple[bytes, bytes]:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        body = json.dumps(message if number is None else {**message, "id": number})
        lines = [f"POST {self._parts.path} HTTP/1.1", f"Host: {self._parts.netloc}"]
        lines += ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
        lines += [f"{name}: {value}" for name, value in self._plan.headers.items()]
        if self._session:
            lines.append(f"Mcp-Session-Id: {self._session}")
        if method != "initialize":
            lines.append(f"MCP-Protocol-Version: {VERSION}")
        lines.append(f"Content-Length: {len(body)}")
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._answer()

    async def _answer(self) -> tuple[bytes, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise SystemExit(f"{self._plan.url} answered {head.decode('latin-1')[:200]}")
        if b"chunked" not in _header(head, b"transfer-encoding").encode():
            return head, await self._reader.readexactly(int(_header(head, b"content-length") or 0))
        parts: list[bytes] = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            parts.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readuntil(b"\r\n")
        return head, b"".join(parts)


def _message(body: bytes) -> dict[str, Any]:
    """Return the response in a JSON body, or the last message of an event stream."""
    if not body.startswith(b"{"):
        data = [line for line in body.splitlines() if line.startswith(b"data:")]
        body = data[-1].removeprefix(b"data:")
    message: dict[str, Any] = json.loads(body)
    return message


def _header(head: bytes, name: bytes) -> str:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(name + b":"):
            return line.partition(b":")[2].strip().decode()
    return ""


async def run(plan: Plan, report: Callable[[str], None] = lambda _text: None) -> dict[str, Any]:
    """Run the load and return the figures after the warm-up. `report` receives wrong answers."""
    clients = [Client(plan, number) for number in range(plan.connections)]
    latencies: list[float] = []
    wrong = total = started = 0
    begins = ends = math.inf

    async def work(client: Client) -> None:
        nonlocal wrong, total, started, begins, ends
        tool = await client.start()
        started += 1
        if started == plan.connections:  # the others call already: an idle connection is closed
            begins = perf_counter() + plan.warm_seconds
            ends = begins + plan.seconds
        while (began := perf_counter()) < ends:
            total += 1
            fault = await client.call(tool, total)
            if fault:
                wrong += 1
                report(fault)
            elif began >= begins:
                latencies.append((perf_counter() - began) * 1000)

    await asyncio.gather(*map(work, clients))
    took = perf_counter() - begins
    found = sorted(latencies)
    if not found:
        raise SystemExit(f"{plan.url}: no right answer")
    return {
        "requests": len(found),
        "all_requests": total,
        "wrong": wrong,
        "per_second": len(found) / took,
        "p50_ms": found[len(found) // 2],
        "p99_ms": found[int(len(found) * 0.99)],
    }


if __name__ == "__main__":
    given = Plan(**json.loads(sys.argv[1]))
    print(json.dumps(uvloop.run(run(given, lambda text: print(text, file=sys.stderr)))))
