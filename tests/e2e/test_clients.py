"""Real clients of both protocol families, in front of real servers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastmcp import Client as FastClient
from mcp import MCPError
from mcp.client.client import Client as SdkClient
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from harness.gateway.everything_gateway import READER_KEY, ROOT_KEY, Gateway

modes = pytest.mark.parametrize("mode", ["auto", "legacy"])


@asynccontextmanager
async def sdk(gateway: Gateway, mode: str, secret: str = ROOT_KEY) -> AsyncIterator[SdkClient]:
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(gateway.client().endpoint, http_client=http)
        async with SdkClient(transport, mode=mode) as client:
            yield client


def text(result: Any) -> str:
    return str(result.content[0].text)


@modes
async def test_the_sdks_client_lists_and_calls(gateway: Gateway, mode: str) -> None:
    async with sdk(gateway, mode) as client:
        assert client.protocol_version == ("2026-07-28" if mode == "auto" else "2025-11-25")
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"echo__say", "time__get_current_time", "git__git_log", "every__echo"} <= names
        assert "web__echo" in names
        message = await client.call_tool("echo__count", {"id": f"sdk-{mode}"})
        assert text(message) == f"sdk-{mode}"


@modes
async def test_a_stdio_server_returns_the_time(gateway: Gateway, mode: str) -> None:
    async with sdk(gateway, mode) as client:
        result = await client.call_tool("time__get_current_time", {"timezone": "UTC"})
        assert '"timezone": "UTC"' in text(result)
        assert not result.is_error


@modes
async def test_a_stdio_server_reads_a_repository(
    gateway: Gateway, repository: Path, mode: str
) -> None:
    async with sdk(gateway, mode, READER_KEY) as client:
        assert [t.name for t in (await client.list_tools()).tools] == ["echo__say", "git__git_log"]
        result = await client.call_tool("git__git_log", {"repo_path": str(repository)})
        assert "The first commit" in text(result)


@pytest.mark.parametrize("server", ["every", "web"])
@modes
async def test_server_everything_answers_on_stdio_and_over_http(
    gateway: Gateway, mode: str, server: str
) -> None:
    async with sdk(gateway, mode) as client:
        assert "ho" in text(await client.call_tool(f"{server}__echo", {"message": "ho"}))
        total = await client.call_tool(f"{server}__get-sum", {"a": 2, "b": 40})
        assert "42" in text(total)
        image = await client.call_tool(f"{server}__get-tiny-image", {})
        assert any(part.type == "image" for part in image.content)
        shaped = await client.call_tool(
            f"{server}__get-structured-content", {"location": "New York"}
        )
        assert shaped.structured_content is not None


@modes
async def test_progress_reaches_the_client_before_the_result(gateway: Gateway, mode: str) -> None:
    items: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - the SDK names them
        items.append(progress)

    async with sdk(gateway, mode) as client:
        result = await client.call_tool("echo__drip", {"steps": 3}, progress_callback=on_progress)
    assert text(result) == "3 steps"
    assert items == [1, 2, 3]


@modes
async def test_a_hidden_tool_is_a_protocol_error_to_the_sdk(gateway: Gateway, mode: str) -> None:
    async with sdk(gateway, mode, READER_KEY) as client:
        with pytest.raises(MCPError, match="Unknown tool: echo__push_branch") as caught:
            await client.call_tool("echo__push_branch", {})
        assert caught.value.error.code == -32602


async def test_fastmcps_client_lists_and_calls(gateway: Gateway) -> None:
    async with FastClient(gateway.client().endpoint, auth=ROOT_KEY) as client:
        assert "git__git_log" in {tool.name for tool in await client.list_tools()}
        assert text(await client.call_tool("echo__count", {"id": "fast"})) == "fast"
        assert (await client.call_tool("time__get_current_time", {"timezone": "UTC"})).content


async def test_fastmcps_client_at_the_endpoint_of_one_server_sees_plain_names(
    gateway: Gateway,
) -> None:
    async with FastClient(gateway.client(server="time").endpoint, auth=ROOT_KEY) as client:
        assert {t.name for t in await client.list_tools()} == {"get_current_time", "convert_time"}
        assert (await client.call_tool("get_current_time", {"timezone": "UTC"})).content


@pytest.mark.parametrize("server", ["", "/every"], ids=["all", "one"])
async def test_a_client_of_http_sse_lists_and_calls(gateway: Gateway, server: str) -> None:
    url = gateway.client().endpoint.replace("/mcp", f"/sse{server}")
    headers = {"Authorization": f"Bearer {ROOT_KEY}"}
    async with SdkClient(sse_client(url, headers=headers), mode="legacy") as client:
        name = "echo" if server else "every__echo"
        assert name in {tool.name for tool in (await client.list_tools()).tools}
        assert text(await client.call_tool(name, {"message": "hello"})).endswith("hello")
