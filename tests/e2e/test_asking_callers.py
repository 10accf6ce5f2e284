"""Servers that ask their callers: each client gets its own questions, however many ask at once."""

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

from harness.clients.bus_operator import key
from harness.engines.engine import Engine
from harness.gateway.cluster import Cluster
from harness.upstreams import elicitation_server
from harness.waits import until_async
from toolbus_cli.views.upstream_sessions import with_sessions
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import ServersQuery, ServersReply, SessionsQuery, SessionsReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

SECRET = "tbk_ann_a-secret-of-those-who-are-asked"
pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
PROGRAM = Path(elicitation_server.__file__)
CLIENTS = 10
SERVERS = ("stdio", "sse", "http")
MODES = ("legacy", "auto")


class Asking(Engine):
    """The server on a port."""

    def __init__(self, directory: Path, kind: str) -> None:
        super().__init__(directory)
        self.kind = kind

    def command(self) -> list[str]:
        """The port is an argument."""
        return [sys.executable, str(PROGRAM), self.kind, str(self.port)]

    @property
    def declared(self) -> Server:
        """How it is declared."""
        at = f"http://127.0.0.1:{self.port}"
        return Server(sse=f"{at}/sse") if self.kind == "sse" else Server(url=f"{at}/mcp/")


@pytest.fixture(scope="module", params=["separate", "fused"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A gateway over a server of each kind; apart, with two replicas of every service."""
    over = [Asking(tmp_path_factory.mktemp(kind), kind) for kind in SERVERS[1:]]
    # Ten processes of the SDK start for ten clients: on a busy machine that takes a while.
    made = Cluster(tmp_path_factory.mktemp("cluster"), TOOLBUS_CALL_TIMEOUT="90")
    fused = request.param == "fused"
    process = Server(command=(sys.executable, str(PROGRAM), "stdio"))
    try:
        for each in over:
            each.start()
        servers = {"stdio": process} | {each.kind: each.declared for each in over}
        declared = Configuration(servers=servers, keys={"ann": key(SECRET)})
        made.start(declared, fused=fused, replicas=1 if fused else 2)
        made.until_listed(made.client(SECRET), *(f"{server}__ask" for server in SERVERS))
        yield made
    finally:
        made.stop()
        for each in over:
            each.kill()


class Person:
    """A client of the SDK with an own word, which answers questions about that word alone."""

    def __init__(self, cluster: Cluster, word: str, mode: str, **callbacks: Any) -> None:
        self.word = word
        self.asked: list[str] = []
        self.roots = [f"file:///{word}"]
        self._endpoint = cluster.client(SECRET).endpoint
        self._mode = mode
        self._callbacks = callbacks

    async def answer(self, _context: Any, params: Any) -> types.ElicitResult:
        """Answer with the word that was asked for."""
        self.asked.append(params.message)
        return types.ElicitResult(action="accept", content={"word": f"{self.word}'s"})

    async def sample(self, _context: Any, params: Any) -> types.CreateMessageResult:
        """Answer in a model's place."""
        self.asked.append(params.messages[0].content.text)
        message = types.TextContent(type="text", text=f"{self.word} says")
        return types.CreateMessageResult(role="assistant", content=message, model="m")

    async def list_roots(self, _context: Any) -> types.ListRootsResult:
        """Tell the roots."""
        return types.ListRootsResult(roots=[types.Root(uri=each) for each in self.roots])

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Person"]:
        """Connect, able to answer everything unless other callbacks were given."""
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
        """The text of a result."""
        result = await self.client.call_tool(tool, {"word": word or self.word})
        return str(getattr(result.content[0], "text", result))


@asynccontextmanager
async def people(
    cluster: Cluster, mode: str, many: int = CLIENTS, **callbacks: Any
) -> AsyncIterator[list[Person]]:
    """So many clients, each connected."""
    try:
        async with AsyncExitStack() as stack:
            made = [Person(cluster, f"w{number}", mode, **callbacks) for number in range(many)]
            yield [await stack.enter_async_context(each.connected()) for each in made]
    except BaseExceptionGroup as group:  # one around another for each client
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", SERVERS)
async def test_clients_that_are_asked_at_once_each_get_their_own_question(
    cluster: Cluster, server: str, mode: str
) -> None:
    async with people(cluster, mode) as every:
        for tool, message in (("ask", "accept {}'s"), ("sample", "{} says")):
            result = await asyncio.gather(*(each.call(f"{server}__{tool}") for each in every))
            assert result == [message.format(each.word) for each in every]
        assert [each.asked for each in every] == [[each.word] * 2 for each in every]


@pytest.mark.parametrize("server", SERVERS)
async def test_calls_of_one_client_are_asked_side_by_side(cluster: Cluster, server: str) -> None:
    async with Person(cluster, "one", "legacy").connected() as one:
        words = [f"v{number}" for number in range(4)]
        result = await asyncio.gather(*(one.call(f"{server}__ask", word) for word in words))
        assert result == ["accept one's"] * 4
        assert sorted(one.asked) == words


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", SERVERS)
async def test_a_client_that_does_not_answer_holds_nobody_else_up(
    cluster: Cluster, server: str, mode: str
) -> None:
    never, request = asyncio.Event(), asyncio.Event()

    async def silent(_context: Any, _params: Any) -> types.ElicitResult:
        request.set()
        await never.wait()
        return types.ElicitResult(action="cancel")

    async with people(cluster, mode, 1, elicitation_callback=silent) as (quiet,):
        waiting = asyncio.create_task(quiet.call(f"{server}__ask"))
        async with asyncio.timeout(60):
            await request.wait()
        async with people(cluster, mode, 3) as every:
            result = await asyncio.gather(*(each.call(f"{server}__ask") for each in every))
        assert result == [f"accept {each.word}'s" for each in every]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("server", ["stdio", "sse"])
async def test_a_client_that_leaves_frees_its_place_at_once(cluster: Cluster, server: str) -> None:
    for _ in range(3):  # three times eight are more than one key has places
        async with people(cluster, "legacy", 8) as every:
            result = await asyncio.gather(*(each.call(f"{server}__ask") for each in every))
            assert result == [f"accept {each.word}'s" for each in every]

    async def gone() -> bool:
        rows = await asyncio.to_thread(cluster.on_the_bus, status)
        (row,) = (each for each in rows if each["name"] == server)
        return not any(each["client"] for each in row["sessions"]["held"])

    await until_async(gone, "the end of the sessions of clients that left")


async def status(bus: Bus) -> list[dict[str, Any]]:
    """What `toolbus status` shows of servers."""
    lane = RequestReply(OPERATOR, bus)
    servers = list((await lane.request(ServersQuery(), ServersReply)).servers)
    return with_sessions(servers, await lane.request_each(SessionsQuery(), SessionsReply))


@pytest.mark.parametrize("server", SERVERS)
async def test_what_a_server_asks_outside_calls_reaches_the_client_of_its_connection(
    cluster: Cluster, server: str
) -> None:
    async with people(cluster, "legacy", 3) as every:
        for each in every:
            await each.call(f"{server}__plain")

        async def all_heard(*wanted: str) -> bool:
            items = [await each.call(f"{server}__heard") for each in every]
            return all(
                line.format(each.word) in text.split(";")
                for each, text in zip(every, items, strict=True)
                for line in wanted
            )

        async def heard_or_asked_again() -> bool:
            """A server asks nobody while its client has no stream yet, or Toolbus none to it."""
            if await all_heard("roots file:///{0}"):
                return True
            for each in every:
                await each.client.send_roots_list_changed()
            return False

        await until_async(heard_or_asked_again, "the roots of each")
        for each in every:
            each.roots.append(f"file:///more-{each.word}")
            await each.client.send_roots_list_changed()
        changed = "roots file:///{0},file:///more-{0}"
        await until_async(lambda: all_heard(changed), "the roots of each once they changed")
        await asyncio.gather(*(each.call(f"{server}__later") for each in every))
        await until_async(lambda: all_heard("later accept {0}'s"), "answers after the call")
        items = [await each.call(f"{server}__heard") for each in every]
        for each, text in zip(every, items, strict=True):
            assert not [other.word for other in every if other is not each and other.word in text]


@pytest.mark.parametrize("server", SERVERS)
async def test_an_error_a_client_answers_with_reaches_the_server_as_it_is(
    cluster: Cluster, server: str
) -> None:
    async def refuse(_context: Any, _params: Any) -> types.ErrorData:
        return types.ErrorData(code=-1, message="User rejected it")

    callbacks = {"elicitation_callback": refuse, "sampling_callback": refuse}
    async with people(cluster, "legacy", 1, **callbacks) as (one,):
        for tool in ("ask", "sample"):
            assert await one.call(f"{server}__{tool}") == "error -1 User rejected it"


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_is_listed_the_tools_that_fit_what_it_declared(
    cluster: Cluster, mode: str
) -> None:
    async def no_answer(_context: Any, _params: Any) -> types.ErrorData:
        return types.ErrorData(code=-1, message="Not answered")

    async def listed(**callbacks: Any) -> set[str]:
        async with people(cluster, mode, 1, **callbacks) as (one,):
            return {tool.name for tool in (await one.client.list_tools()).tools}

    for _ in range(2):  # each class before and after the other: nothing of one is kept for another
        able = await listed(sampling_callback=no_answer)
        unable = await listed(elicitation_callback=no_answer)
        for server in SERVERS:
            assert {f"{server}__think", f"{server}__fallback"} & able == {f"{server}__think"}
            assert {f"{server}__think", f"{server}__fallback"} & unable == {f"{server}__fallback"}
            assert f"{server}__ask" in able & unable
