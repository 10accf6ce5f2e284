"""The fixture server answers the SDK's client over every transport, in both families."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ListRootsResult,
    Root,
    TextContent,
)

from conformance.upstream import TESTS, FixtureServer

REVISIONS = {"modern": "2026-07-28", "legacy": "2025-11-25"}
TRANSPORTS = ["http modern", "http legacy", "stdio modern", "stdio legacy", "sse legacy"]


async def accept(context: Any, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG001
    return ElicitResult(action="accept", content={"name": "Ada", "color": "green", "ok": True})


async def say(context: Any, params: CreateMessageRequestParams) -> CreateMessageResult:  # noqa: ARG001
    return CreateMessageResult(
        role="assistant", model="none", content=TextContent(type="text", text="Paris")
    )


async def roots(context: Any) -> ListRootsResult:  # noqa: ARG001
    return ListRootsResult(roots=[Root(uri="file:///a"), Root(uri="file:///b")])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FixtureServer]]:
    """Run the server over HTTP in either family, and over HTTP+SSE."""
    made = {
        name: FixtureServer(tmp_path_factory.mktemp("fixture"), *options)
        for name, options in {
            "http modern": ("--family", "modern", "--page", "7"),
            "http legacy": ("--family", "legacy", "--page", "7"),
            "sse legacy": ("--family", "legacy", "--sse"),
        }.items()
    }
    for server in made.values():
        server.start()
    yield made
    for server in made.values():
        server.kill()


@asynccontextmanager
async def connected(
    transport_name: str, servers: dict[str, FixtureServer]
) -> AsyncIterator[Client]:
    transport, family = transport_name.split()
    server: Any
    if transport == "stdio":
        words = ["-m", "fixture_server", "--stdio", "--family", family]
        environment = {"PYTHONPATH": str(TESTS)}
        server = StdioServerParameters(command=sys.executable, args=words, env=environment)
    elif transport == "sse":
        server = sse_client(servers[transport_name].url.replace("/mcp", "/sse"))
    else:
        server = servers[transport_name].url
    abilities: dict[str, Any] = {
        "elicitation_callback": accept,
        "sampling_callback": say,
        "list_roots_callback": roots,
    }
    mode = "auto" if family == "modern" else "legacy"
    async with Client(server, mode=mode, **abilities) as client:
        assert client.protocol_version == REVISIONS[family]
        yield client


async def text(client: Client, tool: str, **arguments: Any) -> str:
    result: Any = await client.call_tool(tool, arguments)
    return str(result.content[0].text)


@pytest.mark.parametrize("transport_name", TRANSPORTS)
async def test_the_fixture_lists_reads_and_prompts(
    transport_name: str, servers: dict[str, FixtureServer]
) -> None:
    async with connected(transport_name, servers) as client:
        names, cursor = set(), None
        while True:
            page = await client.list_tools(cursor=cursor)
            names |= {tool.name for tool in page.tools}
            if (cursor := page.next_cursor) is None:
                break
        assert {"test_simple_text", "greet", "test_x_mcp_header"} <= names
        contents: Any = (await client.read_resource("test://template/7/data")).contents
        assert '"id": "7"' in contents[0].text
        prompt: Any = await client.get_prompt(
            "test_prompt_with_arguments", {"arg1": "a", "arg2": "b"}
        )
        assert "arg1='a'" in prompt.messages[0].content.text


@pytest.mark.parametrize("transport_name", TRANSPORTS)
async def test_the_fixture_sends_requests_to_its_caller(
    transport_name: str, servers: dict[str, FixtureServer]
) -> None:
    async with connected(transport_name, servers) as client:
        message = await text(client, "test_input_required_result_multiple_inputs")
        assert message == "Name: Ada; Greeting: Paris; Roots: 2"
        message = await text(client, "test_input_required_result_multi_round")
        assert message == "Multi-round complete for Ada who likes green"
        assert await text(client, "test_x_mcp_header", region="norð") == "region: norð"


@pytest.mark.parametrize("transport_name", TRANSPORTS)
async def test_the_fixture_reports_progress(
    transport_name: str, servers: dict[str, FixtureServer]
) -> None:
    items: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001
        items.append(progress)

    async with connected(transport_name, servers) as client:
        await client.call_tool("test_tool_with_progress", {}, progress_callback=hear)
    assert items == [0, 50, 100]


def test_the_fixture_reports_what_it_received(servers: dict[str, FixtureServer]) -> None:
    server = servers["http modern"]
    server.forget()
    assert server.seen()["methods"] == {}
