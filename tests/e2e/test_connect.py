"""A stdio client through `toolbus connect`, in both protocol families."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from mcp import MCPError
from mcp.client.client import Client as SdkClient
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import ElicitResult

from harness.engines.engine import installed
from harness.gateway.everything_gateway import READER_KEY, ROOT_KEY, Gateway
from harness.gateway.launched_gateway import Launched
from harness.waits import PATIENCE, until_async

modes = pytest.mark.parametrize("mode", ["auto", "legacy"])
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@asynccontextmanager
async def bridged(
    endpoint: str, mode: str, secret: str = ROOT_KEY, *options: str, **client: Any
) -> AsyncIterator[SdkClient]:
    command = StdioServerParameters(
        command=installed("toolbus"),
        args=["connect", "--url", endpoint, *options],
        env={"TOOLBUS_KEY": secret, "PATH": os.environ["PATH"]},
    )
    async with SdkClient(stdio_client(command), mode=mode, **client) as opened:
        yield opened


class Piped:
    """A bridge process, driven line by line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.received: list[dict[str, Any]] = []
        self.errors = b""

    def send(self, *messages: Any) -> None:
        """Send each message as a line."""
        lines = [
            each if isinstance(each, bytes) else json.dumps(each).encode() for each in messages
        ]
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(line + b"\n" for line in lines))
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Return the next line of the bridge."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it ended"
        self.received.append(json.loads(line))
        return self.received[-1]

    def close(self) -> list[dict[str, Any]]:
        """Close standard input and return everything received; the bridge ends soon, even busy."""
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.close()
        self.received += [json.loads(line) for line in process.stdout]
        self.errors = process.stderr.read()
        process.wait()
        return self.received


@contextmanager
def piped(url: str, secret: str = ROOT_KEY, *options: str) -> Iterator[Piped]:
    """Run a bridge that ends with this context."""
    with subprocess.Popen(
        [installed("toolbus"), "connect", "--url", url, *options],
        env={**({"TOOLBUS_KEY": secret} if secret else {}), "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        bound = Timer(PATIENCE, process.kill)
        bound.start()
        try:
            yield Piped(process)
        finally:
            bound.cancel()
            process.kill()


def exchange(*messages: Any, url: str, secret: str = ROOT_KEY) -> Piped:
    """Return the bridge after it has answered these lines.

    The client stays until then: after a client that disconnects at once the bridge waits a second,
    which may be too short.
    """
    with piped(url, secret) as bridge:
        bridge.send(*messages)
        for _ in messages:
            bridge.receive()
        bridge.close()
    return bridge


def modern(request_id: Any, method: str, **params: Any) -> dict[str, Any]:
    fields = {**params, "_meta": META}
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": fields}


def text(result: Any) -> str:
    return str(result.content[0].text)


@modes
async def test_the_sdks_client_lists_and_calls_over_stdio(gateway: Gateway, mode: str) -> None:
    async with bridged(gateway.client().endpoint, mode) as client:
        assert client.protocol_version == ("2026-07-28" if mode == "auto" else "2025-11-25")
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"echo__say", "time__get_current_time", "git__git_log"} <= names
        called = await client.call_tool("echo__count", {"id": f"stdio-{mode}"})
        assert text(called) == f"stdio-{mode}"


@modes
async def test_progress_passes_through_the_bridge_before_the_result(
    gateway: Gateway, mode: str
) -> None:
    items: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - the SDK names them
        items.append(progress)

    async with bridged(gateway.client().endpoint, mode) as client:
        result = await client.call_tool("echo__drip", {"steps": 3}, progress_callback=on_progress)
    assert text(result) == "3 steps"
    assert items == [1, 2, 3]


@modes
async def test_an_unknown_tool_is_the_endpoints_own_error(gateway: Gateway, mode: str) -> None:
    async with bridged(gateway.client().endpoint, mode, READER_KEY) as client:
        with pytest.raises(MCPError, match="Unknown tool: echo__push_branch") as caught:
            await client.call_tool("echo__push_branch", {})
        assert caught.value.error.code == -32602


@modes
async def test_the_bridge_of_one_server_lists_its_plain_names(gateway: Gateway, mode: str) -> None:
    options = ("--server", "time")
    async with bridged(gateway.client().endpoint, mode, ROOT_KEY, *options) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"get_current_time", "convert_time"}


@pytest.mark.parametrize("method", ["server/discover", "initialize"])
def test_a_wrong_key_is_an_error_with_its_fix(gateway: Gateway, method: str) -> None:
    handshake = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    request = handshake if method == "initialize" else modern(1, method)
    done = exchange(request, url=gateway.client().endpoint, secret="tbk_wrong")
    (result,) = done.received
    assert result["id"] == 1
    assert "Invalid, revoked or expired API key" in result["error"]["message"]
    assert "'toolbus keys create' creates one" in result["error"]["message"]
    assert "tbk_wrong" not in f"{result}{done.errors!r}"


def test_an_unreachable_endpoint_is_an_error_with_its_fix() -> None:
    done = exchange(modern("a", "tools/list"), url="http://127.0.0.1:9/mcp")
    (result,) = done.received
    assert result["id"] == "a"
    assert "Cannot connect to" in result["error"]["message"]
    assert "toolbus up" in result["error"]["message"]
    assert result["error"]["data"] == {"code": "unavailable", "retryable": True}
    assert done.process.returncode == 0


def test_an_invalid_line_affects_no_other_line(gateway: Gateway) -> None:
    url = gateway.client().endpoint
    result = exchange(b"nonsense", b"[]", modern(7, "tools/list"), url=url).received
    assert [each["error"]["code"] for each in result if each["id"] is None] == [-32700, -32700]
    (listed,) = [each for each in result if each["id"] == 7]
    assert listed["result"]["tools"]


def test_many_requests_are_answered_each_under_its_id(gateway: Gateway) -> None:
    calls = [
        modern(at, "tools/call", name="echo__count", arguments={"id": f"n{at}"}) for at in range(40)
    ]
    result = exchange(*calls, url=gateway.client().endpoint).received
    answers = {each["id"]: each["result"]["content"][0]["text"] for each in result}
    assert answers == {at: f"n{at}" for at in range(40)}


def test_a_cancelled_stateless_request_has_no_answer(gateway: Gateway) -> None:
    call = modern(1, "tools/call", name="echo__wait", arguments={"id": "slow", "seconds": 3})
    cancelled = {
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1},
    }  # fmt: skip
    with piped(gateway.client().endpoint) as bridge:
        bridge.send(call, cancelled, modern(2, "tools/list"))
        assert bridge.receive()["id"] == 2
        # This call starts after the cancellation and takes longer: an answer to the cancelled call
        # would come before its answer.
        bridge.send({**call, "id": 3})
        assert bridge.receive()["id"] == 3
        assert [each["id"] for each in bridge.close()] == [2, 3]


def test_a_subscription_is_acknowledged_and_ends_with_the_client(gateway: Gateway) -> None:
    listen = modern(7, "subscriptions/listen", notifications={"toolsListChanged": True})
    slow = modern(8, "tools/call", name="echo__wait", arguments={"id": "s", "seconds": 0.5})
    with piped(gateway.client().endpoint) as bridge:
        bridge.send(listen)
        assert bridge.receive()["method"] == "notifications/subscriptions/acknowledged"
        bridge.send(slow)
        assert bridge.receive()["id"] == 8
        assert [each["id"] for each in bridge.close() if "id" in each] == [8]
    assert bridge.process.returncode == 0


def test_a_key_is_read_from_a_file_and_its_absence_is_an_error(
    gateway: Gateway, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(ROOT_KEY + "\n")
    url = gateway.client().endpoint
    with piped(url, "", "--key-file", str(file)) as bridge:
        bridge.send(modern(1, "tools/list"))
        assert bridge.receive()["result"]["tools"]
        bridge.close()
    assert bridge.process.returncode == 0
    with piped(url, "") as without:
        assert without.close() == []
    assert without.process.returncode == 1
    assert b"TOOLBUS_KEY" in without.errors


@pytest.fixture(scope="module", params=["modern", "legacy"])
def elicitation_gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launched]:
    """Run a gateway with a server of either family that sends requests and notifications."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.fixture_server", "--stdio", "--family", request.param]
    cluster = Launched(tmp_path_factory.mktemp(f"asking-{request.param}"))
    with cluster.running(
        {
            "servers": {"fix": {"command": command, "cwd": str(root)}},
            "keys": {"root": {"secret": ROOT_KEY, "tools": ["*"]}},
        }
    ):
        cluster.until_listed(cluster.client(ROOT_KEY), "fix__test_elicitation")
        yield cluster


@modes
async def test_a_servers_request_is_answered_over_stdio(
    elicitation_gateway: Launched, mode: str
) -> None:
    async def accept(_context: Any, params: Any) -> ElicitResult:
        request.append(params.message)
        return ElicitResult(action="accept", content={"name": "Ada"})

    request: list[str] = []
    async with bridged(
        elicitation_gateway.ready["endpoint"], mode, elicitation_callback=accept
    ) as client:
        result = await client.call_tool("fix__test_elicitation", {"message": "Who is it?"})
    assert request == ["Who is it?"]
    assert not result.is_error


@modes
async def test_an_argument_required_in_a_header_passes_over_stdio(
    elicitation_gateway: Launched, mode: str
) -> None:
    async with bridged(elicitation_gateway.ready["endpoint"], mode) as client:
        result = await client.call_tool("fix__test_x_mcp_header", {"region": "Zürich "})
    assert not result.is_error


async def test_a_changed_list_is_sent_to_a_session_over_stdio(
    elicitation_gateway: Launched,
) -> None:
    received = asyncio.Event()

    async def on_message(message: Any) -> None:
        if "ToolListChanged" in type(message).__name__:
            received.set()

    async with bridged(
        elicitation_gateway.ready["endpoint"], "legacy", message_handler=on_message
    ) as client:

        async def is_received() -> bool:
            await client.call_tool("fix__test_trigger_tool_change", {})
            return received.is_set()

        await until_async(is_received, "the change, once the session's stream has begun")


async def test_a_changed_list_is_sent_to_a_subscription_over_stdio(
    elicitation_gateway: Launched,
) -> None:
    async with (
        bridged(elicitation_gateway.ready["endpoint"], "auto") as client,
        client.listen(tools_list_changed=True) as changes,
    ):
        await client.call_tool("fix__test_trigger_tool_change", {})
        assert await asyncio.wait_for(anext(changes), PATIENCE) is not None
