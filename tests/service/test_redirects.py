"""Redirects of MCP servers: followed on their own origin, with method and body; never elsewhere."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from harness.services.call_runner import AT_LOOPBACK, CallRunner
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.upstreams.mcp.http import HttpUpstream


def echo(text: str) -> str:
    """Return the text."""
    return text


@dataclass
class Redirecting:
    """A server of the SDK behind redirecting paths, and the requested paths."""

    port: int
    app: Any
    paths: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.paths.append(scope["path"])
        here = f"http://127.0.0.1:{self.port}"
        moves = {
            "/slash": (307, f"{here}/mcp"),
            "/relative": (307, "mcp"),
            "/forever": (308, "/mcp"),
            "/twice": (307, "/relative"),
            "/circle": (307, "/circle"),
            "/away": (307, f"http://localhost:{self.port}/mcp"),
            "/secure": (308, f"https://127.0.0.1:{self.port}/mcp"),
            "/nowhere": (307, "http://[::x/mcp"),
            "/silent": (307, ""),
        }
        if scope["path"] not in moves:
            await self.app(scope, receive, send)
            return
        status, location = moves[scope["path"]]
        headers = [(b"location", location.encode())] if location else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def at(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
async def server() -> AsyncIterator[Redirecting]:
    """Run the server for a test."""
    sdk = MCPServer("moved")
    sdk.tool()(echo)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = Redirecting(bound.getsockname()[1], sdk.streamable_http_app())
        running = uvicorn.Server(uvicorn.Config(server, log_level="error"))
        task = asyncio.create_task(running.serve(sockets=[bound]))
        yield server
        running.should_exit = True
        await task


async def opened(server: Redirecting, path: str) -> CallRunner:
    client = CallRunner()
    await client.open(HttpUpstream(server.at(path), {}, client.news, AT_LOOPBACK))
    return client


@pytest.mark.parametrize("path", ["/slash", "/relative", "/forever", "/twice"])
async def test_a_redirect_on_its_own_origin_is_followed_with_method_and_body(
    server: Redirecting, path: str
) -> None:
    client = await opened(server, path)
    try:
        assert (await client.call("echo", {"text": "hello"})).text == "hello"
    finally:
        await client.close()


async def test_a_permanent_redirect_is_requested_once(server: Redirecting) -> None:
    client = await opened(server, "/forever")
    try:
        for _ in range(3):
            assert (await client.call("echo", {"text": "hello"})).text == "hello"
        assert server.paths.count("/forever") == 1
    finally:
        await client.close()


@pytest.mark.parametrize("path", ["/circle", "/away", "/secure", "/nowhere", "/silent"])
async def test_a_redirect_to_another_origin_is_rejected_with_its_fix(
    server: Redirecting, path: str
) -> None:
    with pytest.raises(UpstreamInvalidError, match=r"HTTP 30[78]: it redirects.* Configure"):
        await opened(server, path)
    assert "/mcp" not in server.paths
