"""Real servers of both protocol families, and real clients of each in front of them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError
from mcp.client.client import Client as SdkClient
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import CreateMessageResult, ElicitResult, TextContent

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Client
from harness.engines.engine import Engine
from harness.gateway.cluster import Cluster
from harness.gateway.family_gateway import ROOT, calling, request, start_session
from harness.waits import until_blocking
from toolbus_common.config import Configuration, Server
from toolbus_common.config.servers.isolation import Files
from toolbus_common.contracts import ServersQuery, ServersReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

PROGRAM = Path(__file__).parents[1] / "harness" / "upstreams" / "classic_server.py"
MODERN, LEGACY = "2026-07-28", "2025-11-25"
NARROW = "tbk_narrow_a-secret-for-one-tool"
BLIND = "tbk_blind_a-secret-for-another-server"
modes = pytest.mark.parametrize("mode", ["auto", "legacy"])
dual = pytest.mark.parametrize("server", ["web", "pipe", "shared", "many"])


class Classic(Engine):
    """A process of the classic server over HTTP, in both families or in one."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory)
        self._options = options

    def command(self) -> list[str]:
        """Return the command; it listens on the engine's port."""
        return [sys.executable, str(PROGRAM), "http", str(self.port), *self._options]

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}/mcp"


class Families:
    """A gateway with servers of both families, and of one."""

    def __init__(self, directory: Path) -> None:
        self.web = Classic(directory / "web")
        self.one = Classic(directory / "one", "modern")
        self.again = Classic(directory / "again")
        # A call can start a process of the SDK, which is slow on a busy machine.
        self.cluster = Cluster(directory / "cluster", TOOLBUS_CALL_TIMEOUT="90")

    @property
    def configuration(self) -> Configuration:
        """The configuration with each server in every form of configuration."""
        pipe = {
            "command": (sys.executable, str(PROGRAM), "stdio"),
            "files": Files(read=(str(PROGRAM.parent),)),
        }
        many: Any = [self.web.url, self.again.url]
        servers = {
            "web": Server(url=self.web.url),
            "pipe": Server(**pipe),
            "shared": Server(**pipe, sessions="shared"),
            "many": Server(replicas=many),
            "one": Server(url=self.one.url),
            "old": Server(url=self.web.url, protocol="legacy"),
            "oldpipe": Server(**pipe, protocol="legacy"),
            "new": Server(url=self.web.url, protocol="modern"),
            "wrong": Server(url=self.one.url, protocol="legacy"),
        }
        keys = {
            "root": key(ROOT),
            "narrow": key(NARROW, "web__family"),
            "blind": key(BLIND, "one__*"),
        }
        return Configuration(servers=servers, keys=keys)

    def start(self) -> None:
        """Start everything, and wait until every server's tools are listed."""
        for server in (self.web, self.again, self.one):
            server.start()
        self.cluster.start(self.configuration, fused=True)
        names = ("web", "pipe", "shared", "many", "one", "old", "oldpipe", "new")
        self.cluster.until_listed(self.client(), *(f"{name}__family" for name in names))

    def stop(self) -> None:
        """Stop everything."""
        self.cluster.stop()
        for server in (self.web, self.again, self.one):
            server.kill()

    def client(self, secret: str = ROOT, server: str = "") -> Client:
        """Return a plain client of all servers, or of one."""
        client = self.cluster.client(secret)
        return Client(f"{client.endpoint}/{server}", secret) if server else client

    def reason(self, server: str) -> str:
        """Return the last failure of a server, from the status."""

        async def look(bus: Bus) -> str:
            found = await RequestReply(OPERATOR, bus).request(ServersQuery(), ServersReply)
            rows = {row["name"]: row for row in found.servers}
            return str(rows[server]["last_failure"])

        return self.cluster.on_the_bus(look)

    @asynccontextmanager
    async def sdk(self, mode: str, server: str = "", **more: Any) -> AsyncIterator[SdkClient]:
        """Connect a client of the SDK that answers elicitation and sampling requests."""

        async def answer(_ctx: Any, _params: Any) -> ElicitResult:
            return ElicitResult(action="accept", content={"name": "Ann"})

        async def think(_ctx: Any, _params: Any) -> CreateMessageResult:
            message = TextContent(type="text", text="so")
            return CreateMessageResult(role="assistant", content=message, model="m")

        able = {"elicitation_callback": answer, "sampling_callback": think}
        headers = {"Authorization": f"Bearer {ROOT}"}
        async with httpx2.AsyncClient(headers=headers, timeout=100) as http:
            endpoint = self.client(server=server).endpoint
            transport = streamable_http_client(endpoint, http_client=http)
            async with SdkClient(transport, mode=mode, **able | more) as client:
                yield client


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Families]:
    """Run the gateway of these tests."""
    families = Families(tmp_path_factory.mktemp("families"))
    try:
        families.start()
        yield families
    finally:
        families.stop()


def text(result: Any) -> str:
    """Return the first text of a result."""
    return str(result.content[0].text)


# -- the family a server is called in --------------------------------------------------------------


@dual
async def test_a_client_with_a_session_answers_a_dual_servers_requests(
    families: Families, server: str
) -> None:
    async with families.sdk("legacy") as client:
        assert text(await client.call_tool(f"{server}__greet")) == "Hello Ann"
        assert text(await client.call_tool(f"{server}__think")) == "Thought so"


@dual
async def test_each_caller_is_served_in_its_own_family(families: Families, server: str) -> None:
    async with families.sdk("legacy") as old, families.sdk("auto") as new:
        for _ in range(2):
            assert text(await old.call_tool(f"{server}__family")) == LEGACY
            assert text(await new.call_tool(f"{server}__family")) == MODERN


@modes
async def test_a_stateless_server_serves_clients_of_both_families(
    families: Families, mode: str
) -> None:
    async with families.sdk(mode) as client:
        assert text(await client.call_tool("one__family")) == MODERN


@modes
@pytest.mark.parametrize("server", ["old", "oldpipe"])
async def test_a_server_configured_as_legacy_is_called_with_a_handshake(
    families: Families, server: str, mode: str
) -> None:
    async with families.sdk(mode) as client:
        assert text(await client.call_tool(f"{server}__family")) == LEGACY
        assert text(await client.call_tool(f"{server}__greet")) == "Hello Ann"


@modes
async def test_a_server_configured_as_modern_is_called_without_a_handshake(
    families: Families, mode: str
) -> None:
    async with families.sdk(mode) as client:
        assert text(await client.call_tool("new__family")) == MODERN


def test_a_configured_family_the_server_does_not_offer_is_reported_with_its_fix(
    families: Families,
) -> None:
    def is_reported() -> bool:
        return "set 'protocol: modern'" in families.reason("wrong")

    until_blocking(is_reported, "the reason in the status")


# -- log messages of servers that do not declare them ----------------------------------------------


@pytest.mark.parametrize("server", ["web", "pipe", "old", "many"])
async def test_a_client_without_a_log_level_gets_all_log_messages(
    families: Families, server: str
) -> None:
    received: list[str] = []

    async def on_log(params: Any) -> None:
        received.append(str(params.data))

    async with families.sdk("legacy", logging_callback=on_log) as client:
        await client.call_tool(f"{server}__note", {"text": server})
    assert received == [f"{level} {server}" for level in ("debug", "info", "error")]


async def test_a_client_with_a_log_level_gets_nothing_below(families: Families) -> None:
    received: list[str] = []

    async def on_log(params: Any) -> None:
        received.append(str(params.data))

    async with families.sdk("legacy", logging_callback=on_log) as client:
        with pytest.warns(MCPDeprecationWarning):
            await client.set_logging_level("error")
        await client.call_tool("web__note", {"text": "x"})
    assert received == ["error x"]


def test_older_clients_with_a_session_get_log_messages(families: Families) -> None:
    for version in ("2025-06-18", "2025-03-26"):
        client = families.client()
        session = start_session(client, version=version)
        call = calling("web__note", 3, text=version)
        answer = client.post(call, Mcp_Session_Id=session)
        assert answer.body.count(b'"notifications/message"') == 3


async def test_clients_of_http_sse_get_requests_and_log_messages(families: Families) -> None:
    received: list[str] = []

    async def on_log(params: Any) -> None:
        received.append(str(params.data))

    async def answer(_ctx: Any, _params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"name": "Eve"})

    url = families.client().endpoint.replace("/mcp", "/sse")
    headers = {"Authorization": f"Bearer {ROOT}"}
    able: dict[str, Any] = {"elicitation_callback": answer, "logging_callback": on_log}
    async with SdkClient(sse_client(url, headers=headers), mode="legacy", **able) as client:
        await client.call_tool("pipe__note", {"text": "x"})
        assert text(await client.call_tool("web__greet")) == "Hello Eve"
    assert received == ["debug x", "info x", "error x"]


async def test_a_stateless_client_gets_only_the_log_messages_it_requested(
    families: Families,
) -> None:
    received: list[str] = []

    async def on_log(params: Any) -> None:
        received.append(str(params.data))

    async with families.sdk("auto", logging_callback=on_log) as client:
        await client.call_tool("old__note", {"text": "x"})
    assert not received


async def test_log_messages_reach_only_the_caller_of_their_call(families: Families) -> None:
    received: list[str] = []

    async def on_log(params: Any) -> None:
        received.append(str(params.data))

    async with families.sdk("legacy", logging_callback=on_log) as other:
        async with families.sdk("legacy") as client:
            await client.call_tool("web__note", {"text": "mine"})
        await other.call_tool("web__note", {"text": "yours"})
    assert received == [f"{level} yours" for level in ("debug", "info", "error")]


# -- the endpoint of one server --------------------------------------------------------------------


@asynccontextmanager
async def directly(url: str, mode: str) -> AsyncIterator[SdkClient]:
    async with SdkClient(streamable_http_client(url), mode=mode) as client:
        yield client


@modes
@pytest.mark.parametrize("server", ["web", "many", "pipe"])
async def test_the_endpoint_of_one_server_returns_that_servers_information(
    families: Families, server: str, mode: str
) -> None:
    async with families.sdk("legacy", server) as client:
        # The first such call connects to the server with a handshake.
        await client.call_tool("family")

    def is_connected() -> bool:
        return b'"subscribe":true' not in families.client(server=server).post(INITIALIZE).body

    await asyncio.to_thread(until_blocking, is_connected, "the server met with a handshake")
    async with directly(families.web.url, mode) as own, families.sdk(mode, server) as through:
        assert through.server_info == own.server_info
        assert through.server_capabilities == own.server_capabilities
        if server != "pipe":  # its program has other instructions
            assert through.instructions == own.instructions


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "e2e", "version": "1"},
    },
}


@modes
async def test_the_endpoint_of_all_servers_has_the_gateways_information(
    families: Families, mode: str
) -> None:
    async with families.sdk(mode) as client:
        assert client.server_info is not None
        assert client.server_info.name == "toolbus"


@modes
async def test_an_unknown_name_is_reported_as_requested(families: Families, mode: str) -> None:
    async with families.sdk(mode, "web") as client:
        with pytest.raises(MCPError, match=r"^Unknown tool: nope$"):
            await client.call_tool("nope")
        with pytest.raises(MCPError, match=r"^Unknown prompt: nope$"):
            await client.get_prompt("nope")


def test_a_servers_lists_keep_its_cache_lifetime(families: Families) -> None:
    own, through = Client(families.web.url), families.client(server="web")
    for method in ("server/discover", "tools/list", "prompts/list", "resources/list"):
        message, body = request(own, method).json["result"], request(through, method).json["result"]
        assert body["ttlMs"] == message["ttlMs"], method


def test_a_key_without_a_servers_tools_gets_none_of_its_information(families: Families) -> None:
    client = families.client(BLIND, "web")
    for answer in (client.post(INITIALIZE), request(client, "server/discover")):
        assert b"classic" not in answer.body.lower()
        assert b"Ask away" not in answer.body
    refused = request(client, "tools/call", {"name": "greet", "arguments": {}})
    assert refused.error["message"] == "Unknown tool: greet"


def test_a_forbidden_tool_and_a_missing_tool_are_the_same_error(families: Families) -> None:
    client = families.client(NARROW, "web")
    items = [
        request(client, "tools/call", {"name": name, "arguments": {}}).error
        for name in ("greet", "nope")
    ]
    for error in items:
        error["data"].pop("callId", None)
    assert items[0]["message"].replace("greet", "nope") == items[1]["message"]
    assert items[0]["data"] == items[1]["data"]
