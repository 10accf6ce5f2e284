"""Server requests to callers: each client gets its own requests, however many calls run at once."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp.client.client import Client as SDKClient
from mcp.client.streamable_http import streamable_http_client

from harness.clients.bus_operator import key, servers_with_sessions
from harness.engines.engine import Engine
from harness.gateway.cluster import Cluster
from harness.upstreams import elicitation_server
from harness.waits import until_async
from toolbus_common.config import Configuration, Server

SECRET = "tbk_ann_a-secret-of-those-who-are-asked"
pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
PROGRAM = Path(elicitation_server.__file__)
CLIENTS = 4
SESSIONS = 10  # of one key in an executor
SERVERS = ("stdio", "sse", "http")
MODES = ("legacy", "auto")


class Asking(Engine):
    """A process of the server that listens on a port."""

    def __init__(self, directory: Path, kind: str) -> None:
        super().__init__(directory)
        self.kind = kind

    def command(self) -> list[str]:
        """Return the command; the port is an argument."""
        return [sys.executable, str(PROGRAM), self.kind, str(self.port)]

    @property
    def declared(self) -> Server:
        """The configuration of the server."""
        at = f"http://127.0.0.1:{self.port}"
        where = {"sse": f"{at}/sse"} if self.kind == "sse" else {"url": f"{at}/mcp/"}
        return Server.model_validate(where | {"max_sessions_per_principal": SESSIONS})


@pytest.fixture(scope="module", params=["separate", "fused"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Run a gateway with a server of each kind; separate services have two replicas."""
    over = [Asking(tmp_path_factory.mktemp(kind), kind) for kind in SERVERS[1:]]
    # Each client has a process of the SDK, which is slow on a busy machine.
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), TOOLBUS_CALL_TIMEOUT="90")
    fused = request.param == "fused"
    command = (sys.executable, str(PROGRAM), "stdio")
    process = Server(command=command, max_sessions_per_principal=SESSIONS)
    try:
        for each in over:
            each.start()
        servers = {"stdio": process} | {each.kind: each.declared for each in over}
        declared = Configuration(servers=servers, keys={"ann": key(SECRET)})
        cluster.start(declared, fused=fused, replicas=1 if fused else 2)
        cluster.until_listed(cluster.client(SECRET), *(f"{server}__ask" for server in SERVERS))
        yield cluster
    finally:
        cluster.stop()
        for each in over:
            each.kill()


class WordClient:
    """A client of the SDK that answers requests about its own word."""

    def __init__(self, cluster: Cluster, word: str, mode: str, **callbacks: Any) -> None:
        self.word = word
        self.received: list[str] = []
        self.roots = [f"file:///{word}"]
        self._endpoint = cluster.client(SECRET).endpoint
        self._mode = mode
        self._callbacks = callbacks

    async def answer(self, _context: Any, params: Any) -> types.ElicitResult:
        """Answer an elicitation with the client's word."""
        self.received.append(params.message)
        return types.ElicitResult(action="accept", content={"word": f"{self.word}'s"})

    async def sample(self, _context: Any, params: Any) -> types.CreateMessageResult:
        """Answer a sampling request."""
        self.received.append(params.messages[0].content.text)
        message = types.TextContent(type="text", text=f"{self.word} says")
        return types.CreateMessageResult(role="assistant", content=message, model="m")

    async def list_roots(self, _context: Any) -> types.ListRootsResult:
        """Return the roots."""
        return types.ListRootsResult(roots=[types.Root(uri=each) for each in self.roots])

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["WordClient"]:
        """Connect with a callback for every kind of request, unless others were given."""
        every = {
            "elicitation_callback": self.answer,
            "sampling_callback": self.sample,
            "list_roots_callback": self.list_roots,
        }
        callbacks = self._callbacks or every
        headers = {"authorization": f"Bearer {SECRET}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = streamable_http_client(self._endpoint, http_client=http)
            async with SDKClient(transport, mode=self._mode, **callbacks) as self.client:
                yield self

    async def call(self, tool: str, word: str = "") -> str:
        """Call a tool and return the text of its result."""
        result = await self.client.call_tool(tool, {"word": word or self.word})
        return str(getattr(result.content[0], "text", result))


@asynccontextmanager
async def connect_clients(
    cluster: Cluster, mode: str, many: int = CLIENTS, **callbacks: Any
) -> AsyncIterator[list[WordClient]]:
    """Connect several clients."""
    try:
        async with AsyncExitStack() as stack:
            clients = [
                WordClient(cluster, f"w{number}", mode, **callbacks) for number in range(many)
            ]
            yield [await stack.enter_async_context(each.connected()) for each in clients]
    except BaseExceptionGroup as group:  # nested once for each client
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", SERVERS)
async def test_concurrent_calls_of_many_clients_each_get_their_own_requests(
    cluster: Cluster, server: str, mode: str
) -> None:
    async with connect_clients(cluster, mode) as every:
        for tool, message in (("ask", "accept {}'s"), ("sample", "{} says")):
            result = await asyncio.gather(*(each.call(f"{server}__{tool}") for each in every))
            assert result == [message.format(each.word) for each in every]
        assert [each.received for each in every] == [[each.word] * 2 for each in every]


@pytest.mark.parametrize("server", SERVERS)
async def test_concurrent_calls_of_one_client_each_get_their_own_request(
    cluster: Cluster, server: str
) -> None:
    async with WordClient(cluster, "one", "legacy").connected() as one:
        words = [f"v{number}" for number in range(4)]
        result = await asyncio.gather(*(one.call(f"{server}__ask", word) for word in words))
        assert result == ["accept one's"] * 4
        assert sorted(one.received) == words


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", SERVERS)
async def test_a_client_that_does_not_answer_delays_no_other_client(
    cluster: Cluster, server: str, mode: str
) -> None:
    never, request = asyncio.Event(), asyncio.Event()

    async def silent(_context: Any, _params: Any) -> types.ElicitResult:
        request.set()
        await never.wait()
        return types.ElicitResult(action="cancel")

    async with connect_clients(cluster, mode, 1, elicitation_callback=silent) as (quiet,):
        waiting = asyncio.create_task(quiet.call(f"{server}__ask"))
        async with asyncio.timeout(60):
            await request.wait()
        async with connect_clients(cluster, mode, 3) as every:
            result = await asyncio.gather(*(each.call(f"{server}__ask") for each in every))
        assert result == [f"accept {each.word}'s" for each in every]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("server", ["stdio", "sse"])
async def test_a_client_that_disconnects_frees_its_session_at_once(
    cluster: Cluster, server: str
) -> None:
    for _ in range(3):  # three times five are more than the sessions of one key
        async with connect_clients(cluster, "legacy", SESSIONS // 2) as every:
            result = await asyncio.gather(*(each.call(f"{server}__ask") for each in every))
            assert result == [f"accept {each.word}'s" for each in every]

    async def gone() -> bool:
        rows = await asyncio.to_thread(cluster.on_the_bus, servers_with_sessions)
        (row,) = (each for each in rows if each["name"] == server)
        pool = row["sessions"]  # None if a replica did not answer in time
        return pool is not None and not any(each["client"] for each in pool["sessions"])

    await until_async(gone, "the end of the sessions of clients that left")


@pytest.mark.parametrize("server", SERVERS)
async def test_requests_outside_calls_reach_the_client_of_their_connection(
    cluster: Cluster, server: str
) -> None:
    async with connect_clients(cluster, "legacy", 3) as every:
        for each in every:
            await each.call(f"{server}__plain")

        async def all_received(*expected: str) -> bool:
            items = [await each.call(f"{server}__heard") for each in every]
            return all(
                line.format(each.word) in text.split(";")
                for each, text in zip(every, items, strict=True)
                for line in expected
            )

        async def received_or_prompted_again() -> bool:
            """Prompt the server again while its client or Toolbus has no stream yet."""
            if await all_received("roots file:///{0}"):
                return True
            for each in every:
                await each.client.send_roots_list_changed()
            return False

        await until_async(received_or_prompted_again, "the roots of each")
        for each in every:
            each.roots.append(f"file:///more-{each.word}")
            await each.client.send_roots_list_changed()
        changed = "roots file:///{0},file:///more-{0}"
        await until_async(lambda: all_received(changed), "the roots of each once they changed")
        await asyncio.gather(*(each.call(f"{server}__later") for each in every))
        await until_async(lambda: all_received("later accept {0}'s"), "answers after the call")
        items = [await each.call(f"{server}__heard") for each in every]
        for each, text in zip(every, items, strict=True):
            assert not [other.word for other in every if other is not each and other.word in text]


@pytest.mark.parametrize("server", SERVERS)
async def test_a_clients_error_reaches_the_server_unchanged(cluster: Cluster, server: str) -> None:
    async def refuse(_context: Any, _params: Any) -> types.ErrorData:
        return types.ErrorData(code=-1, message="User rejected it")

    callbacks = {"elicitation_callback": refuse, "sampling_callback": refuse}
    async with connect_clients(cluster, "legacy", 1, **callbacks) as (one,):
        for tool in ("ask", "sample"):
            assert await one.call(f"{server}__{tool}") == "error -1 User rejected it"


@pytest.mark.parametrize("mode", MODES)
async def test_the_listed_tools_depend_on_the_declared_capabilities(
    cluster: Cluster, mode: str
) -> None:
    async def no_answer(_context: Any, _params: Any) -> types.ErrorData:
        return types.ErrorData(code=-1, message="Not answered")

    async def listed(**callbacks: Any) -> set[str]:
        async with connect_clients(cluster, mode, 1, **callbacks) as (one,):
            return {tool.name for tool in (await one.client.list_tools()).tools}

    async def is_compared() -> bool:
        return "stdio__fallback" in await listed(elicitation_callback=no_answer)

    await until_async(is_compared, "the lists for each class of clients are known")
    for _ in range(2):  # each class before and after the other: no list is cached across classes
        able = await listed(sampling_callback=no_answer)
        unable = await listed(elicitation_callback=no_answer)
        for server in SERVERS:
            assert {f"{server}__think", f"{server}__fallback"} & able == {f"{server}__think"}
            assert {f"{server}__think", f"{server}__fallback"} & unable == {f"{server}__fallback"}
            assert f"{server}__ask" in able & unable
