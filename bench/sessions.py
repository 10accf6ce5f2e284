"""One session per call: initialize, list, call, DELETE, with all answers checked.

With `stream`, a session also opens its own event stream by a GET on another connection.

Usage, as its own process: `python bench/sessions.py '{"url": …}'` prints one JSON object.
"""

import asyncio
import json
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import uvloop

VERSION = "2025-11-25"
JSON = "application/json, text/event-stream"


@dataclass(slots=True)
class Plan:
    """The URL, the key, the tool, the concurrency and the duration."""

    url: str
    key: str
    tool: str
    clients: int = 16
    seconds: float = 5.0
    stream: bool = True
    warm_seconds: float = 1.0


class Client:
    """One agent: a connection for its requests, another for each session's stream."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        parts = urlsplit(plan.url)
        self._place = parts.hostname or "", parts.port or 80
        self._path, self._host = parts.path, parts.netloc
        self._session = ""

    async def connect(self) -> None:
        """Open the connection for requests."""
        self._reader, self._writer = await asyncio.open_connection(*self._place)

    async def session(self) -> None:
        """Run one session from start to end. Raises `AssertionError` for a wrong answer."""
        self._session = ""
        hello = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "bench"}}
        head, body = await self._post(1, "initialize", hello)
        self._session = _header(head, b"mcp-session-id")
        assert self._session, body
        await self._post(None, "notifications/initialized", {})
        stream = await self._open_stream() if self._plan.stream else None
        text = f"{id(self)} bench"
        _, body = await self._post(
            2, "tools/call", {"name": self._plan.tool, "arguments": {"text": text}}
        )
        assert text.encode() in body, body
        _, body = await self._post(3, "tools/list", {})
        assert b'"tools":[' in body, body
        self._writer.write(self._request("DELETE"))
        await self._answer()
        if stream is not None:
            stream.close()

    async def _open_stream(self) -> asyncio.StreamWriter:
        """Return the connection of the session's own stream."""
        reader, writer = await asyncio.open_connection(*self._place)
        writer.write(self._request("GET"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        return writer

    async def _post(self, number: int | None, method: str, params: Any) -> tuple[bytes, bytes]:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        body = json.dumps(message if number is None else {**message, "id": number})
        self._writer.write(self._request("POST", body))
        return await self._answer()

    def _request(self, verb: str, body: str = "") -> bytes:
        lines = [f"{verb} {self._path} HTTP/1.1", f"Host: {self._host}", f"Accept: {JSON}"]
        lines += [f"Authorization: Bearer {self._plan.key}", "Content-Type: application/json"]
        if self._session:
            lines += [f"Mcp-Session-Id: {self._session}", f"MCP-Protocol-Version: {VERSION}"]
        lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    async def _answer(self) -> tuple[bytes, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 20"), head
        size = int(_header(head, b"content-length") or 0)
        return head, await self._reader.readexactly(size)


def _header(head: bytes, name: bytes) -> str:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(name + b":"):
            return line.partition(b":")[2].strip().decode()
    return ""


async def run(plan: Plan) -> dict[str, float]:
    """Return sessions per second after the warm-up."""
    ended: list[float] = []
    stop = perf_counter() + plan.warm_seconds + plan.seconds

    async def work() -> None:
        client = Client(plan)
        await client.connect()
        while perf_counter() < stop:
            began = perf_counter()
            await client.session()
            ended.append(began)

    began = perf_counter() + plan.warm_seconds
    await asyncio.gather(*(work() for _ in range(plan.clients)))
    counted = sum(1 for at in ended if at >= began)
    return {
        "sessions": counted,
        "all_sessions": len(ended),
        "per_second": counted / (perf_counter() - began),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(Plan(**json.loads(sys.argv[1]))))))
