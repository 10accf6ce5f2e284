"""Probes of idle servers that are not MCP over HTTP: processes, GraphQL and HTTP APIs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.network.tcp_servers import served
from harness.samples.url_settings import described
from harness.services.call_runner import AT_LOOPBACK, CallRunner
from toolbus_common.concurrency import end
from toolbus_common.config import Server
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.resilience.health_probe import NoProbeError, Probed
from toolbus_executor.upstreams.graphql import GraphQLUpstream
from toolbus_executor.upstreams.mcp import stdio as stdio_upstream
from toolbus_executor.upstreams.mcp.stdio import MAX_MISSED, StdioUpstream
from toolbus_executor.upstreams.openapi.upstream import OpenApiUpstream

# Answers requests, but none after a call of `deaf`; `mute`: never a ping.
PROGRAM = """
import json, sys
family, mute = sys.argv[1], len(sys.argv) > 2
info = {"protocolVersion": "2025-06-18", "serverInfo": {}, "capabilities": {"tools": {}}}
modern = {"server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}}
known = modern if family == "modern" else {"initialize": info, **({} if mute else {"ping": {}})}
known |= {"tools/list": {"tools": [{"name": "deaf", "inputSchema": {"type": "object"}}]},
          "tools/call": {"content": [{"type": "text", "text": "deaf from now on"}]}}
for line in sys.stdin:
    message = json.loads(line)
    result = known.get(message["method"])
    if "id" in message and not (mute and message["method"] == "ping"):
        body = {"error": {"code": -32601, "message": "?"}} if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}), flush=True)
    if message["method"] == "tools/call":
        known, mute = {}, True
        sys.stdin.read()
"""


@asynccontextmanager
async def process(*words: str) -> AsyncIterator[tuple[CallRunner, StdioUpstream]]:
    client = CallRunner()
    upstream = StdioUpstream([sys.executable, "-c", PROGRAM, *words], {}, "", client.news)
    try:
        await client.open(upstream)
        yield client, upstream
    finally:
        await client.close()


@pytest.mark.parametrize("family", ["modern", "legacy"])
async def test_a_process_that_stops_answering_is_ended(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process(family) as (client, upstream):
        await upstream.probe()
        assert (await client.call("deaf")).text == "deaf from now on"
        monkeypatch.setattr(stdio_upstream, "ANSWER_SECONDS", 0.05)
        for _ in range(MAX_MISSED):
            with pytest.raises(TimeoutError):
                await upstream.probe()
        assert await upstream.wait_lost() == (
            f"Its process ended: it did not respond to {MAX_MISSED} probes in a row."
        )


async def test_a_process_without_ping_support_is_not_considered_hung(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stdio_upstream, "ANSWER_SECONDS", 0.05)
    async with process("legacy", "mute") as (_, upstream):
        with pytest.raises(NoProbeError):
            await upstream.probe()
        assert upstream.pid is not None


async def test_a_server_without_a_probe_is_not_probed_again() -> None:
    class Silent:
        probes = 0

        async def probe(self) -> None:
            self.probes += 1
            raise NoProbeError

    silent, client = Silent(), CallRunner(probe=0.01)
    watching = asyncio.create_task(client.runner.health.watch(silent))
    try:
        await watching
        assert (silent.probes, client.runner.health.latest) == (1, {})
    finally:
        await end(watching)


@dataclass
class Api:
    """An API that returns the configured answer, and records its requests."""

    port: int = 0
    answer: tuple[int, bytes] = (200, b"{}")
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = [line[15:] for line in head.split("\r\n") if line.startswith("Content-Length:")]
        self.heads.append(head)
        self.bodies.append(await reader.readexactly(int(length[0]) if length else 0))
        status, body = self.answer
        about = f"HTTP/1.1 {status} .\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(about.encode() + body)
        await writer.drain()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()
    async with served(api.meet) as api.port:
        yield api


async def wrong(upstream: Probed) -> str:
    """Return the reason a probe failed, or an empty text."""
    try:
        await upstream.probe()
    except (UpstreamDeadError, GarbageError) as error:
        return error.reason
    return ""


async def test_a_graphql_api_is_probed_with_a_typename_query(api: Api) -> None:
    upstream = GraphQLUpstream(
        Server(graphql=f"{api.url}/graphql"), {}, CallRunner().news, AT_LOOPBACK
    )
    try:
        api.answer = 200, b'{"data":{"__typename":"Query"}}'
        assert await wrong(upstream) == ""
        assert api.bodies == [b'{"query":"{__typename}"}']
        api.answer = 400, b"Bad Request"
        assert await wrong(upstream) == "", "any answer is a sign of life"
        api.answer = 500, b"{}"
        assert "HTTP 500" in await wrong(upstream)
        api.answer = 200, b"<html>"
        assert "is not GraphQL" in await wrong(upstream)
    finally:
        await upstream.close()


async def test_an_http_api_is_probed_at_the_configured_path(api: Api, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_bytes(described(f"{api.url}/api/v1"))
    declared = Server(openapi=str(document), probe_path="/healthz?deep=1")
    fields = {"Authorization": "Bearer x"}
    upstream = OpenApiUpstream(declared, fields, {}, CallRunner().news, AT_LOOPBACK)
    try:
        await upstream.open()
        api.answer = 404, b""
        assert await wrong(upstream) == "", "any answer is a sign of life"
        assert api.heads[-1].startswith("GET /healthz?deep=1 HTTP/1.1\r\n")
        assert "Authorization: Bearer x\r\n" in api.heads[-1]
        api.answer = 503, b""
        assert "responded to a probe with HTTP 503" in await wrong(upstream)
    finally:
        await upstream.close()


async def test_an_http_api_without_a_probe_path_is_not_probed(api: Api, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_bytes(described(api.url))
    declared = Server(openapi=str(document))
    upstream = OpenApiUpstream(declared, {}, {}, CallRunner().news, AT_LOOPBACK)
    try:
        await upstream.open()
        with pytest.raises(NoProbeError):
            await upstream.probe()
        assert api.heads == []
    finally:
        await upstream.close()
