"""Calls of gRPC servers, against one with reflection in a process of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.apis.grpc_process import GrpcServer
from harness.services.call_runner import AT_LOOPBACK, CallRunner
from toolbus_common.config import Operations, Server
from toolbus_common.errors import InvalidArgumentsError, UpstreamDeadError
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.factory import reached
from toolbus_executor.upstreams.grpc.upstream import MAX_MESSAGES, GrpcUpstream

TOKEN = "Bearer grpc-token-that-is-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    with GrpcServer(tmp_path_factory.mktemp("grpc")).running() as server:
        yield server


async def opened(server: GrpcServer, **declared: Any) -> CallRunner:
    client = CallRunner()
    result = Server(grpc=server.address, **declared)
    await client.open(GrpcUpstream(result, {"Authorization": TOKEN}, client.news, AT_LOOPBACK))
    return client


@pytest.fixture
async def client(server: GrpcServer) -> AsyncIterator[CallRunner]:
    client = await opened(server)
    try:
        yield client
    finally:
        await client.close()


async def test_every_method_is_a_tool_unless_its_request_is_a_stream(client: CallRunner) -> None:
    tools = {each.name: each.definition for each in client.listing.tools}
    assert set(tools) == {"Shop_Echo", "Shop_Fail", "Shop_Count"}
    assert list(client.upstream.left_out) == ["shop.Shop/Gather"]
    schema = tools["Shop_Echo"]["inputSchema"]
    result = schema["properties"]
    assert result["pages"] == {"type": ["string", "integer"]}
    assert result["genre"] == {"enum": ["UNKNOWN", "NOVEL", "ESSAY"]}
    assert result["sequel"] == {"$ref": "#/$defs/shop.Book"}
    assert result["printedAt"]["format"] == "date-time"
    assert result["stock"]["additionalProperties"] == {"type": ["string", "integer"]}
    assert schema["$defs"]["shop.Book"]["properties"]["tags"]["type"] == "array"


async def test_json_becomes_a_message_and_the_answer_becomes_json(client: CallRunner) -> None:
    book = {
        "title": "Tehanu",
        "pages": "9007199254740993",
        "genre": "NOVEL",
        "tags": ["a", "b"],
        "sequel": {"title": "Tales"},
        "printedAt": "1990-02-01T00:00:00Z",
        "extra": {"any": [1, None]},
        "cover": "AAE=",
        "rating": 4.5,
        "stock": {"Oslo": "3"},
    }
    assert (await client.call("Shop_Echo", book)).last["structuredContent"] == book


async def test_the_first_messages_of_a_stream_are_returned_with_a_mark_for_more(
    client: CallRunner,
) -> None:
    few = (await client.call("Shop_Count", {"pages": 2})).last["structuredContent"]
    assert few == {"messages": [{"title": "0"}, {"title": "1"}], "more": False}
    many = (await client.call("Shop_Count", {"pages": 10_000_000})).last["structuredContent"]
    assert (len(many["messages"]), many["more"]) == (MAX_MESSAGES, True)


async def test_an_error_is_a_tool_error_without_the_secret(client: CallRunner) -> None:
    failed = await client.call("Shop_Fail", {"title": "x"})
    assert failed.last["isError"] is True
    assert failed.text == "NOT_FOUND: no x for (secret)"


async def test_an_invalid_message_is_rejected_without_its_values(client: CallRunner) -> None:
    await client.runner.checks.learn([])  # as without validation in the gateway
    for wrong in ({"pages": "hunter2"}, {"nothing": "hunter2"}, {"printedAt": "hunter2"}):
        error = (await client.call("Shop_Echo", wrong)).error
        assert isinstance(error, InvalidArgumentsError)
        assert "hunter2" not in error.reason
        assert (client.outcome.charge, client.outcome.sent) == (0, False)


async def test_operations_select_the_methods_that_become_tools(server: GrpcServer) -> None:
    client = await opened(server, operations=Operations(include=("shop.Shop/E*",)))
    try:
        assert [each.name for each in client.listing.tools] == ["Shop_Echo"]
    finally:
        await client.close()


async def test_a_stopped_server_is_dead(tmp_path: Path) -> None:
    server = GrpcServer(tmp_path)
    server.start()
    try:
        client = await opened(server)
        try:
            await asyncio.to_thread(server.kill)
            assert isinstance((await client.call("Shop_Echo")).error, UpstreamDeadError)
        finally:
            await client.close()
    finally:
        server.kill()


async def test_without_its_libraries_the_server_reports_the_installation(
    server: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "toolbus_executor.upstreams.grpc.upstream", None)
    with pytest.raises(UpstreamDeadError, match=r"pip install 'toolbus\[grpc\]'"):
        reached(Server(grpc=server.address), CallRunner().news, DialerFactory(), {})
