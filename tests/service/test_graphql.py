"""GraphQL APIs as upstreams, against a server of graphql-core in a process of its own."""

import json
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from harness.apis.rest_process import TESTS
from harness.engines.engine import Engine
from harness.services.call_runner import AT_LOOPBACK, CallRunner
from toolbus_common.config import Operations, Server
from toolbus_common.errors import InvalidArgumentsError, UpstreamDeadError, UpstreamFaultError
from toolbus_executor.upstreams.graphql import GraphQLUpstream
from toolbus_executor.upstreams.listing import with_left_out

TOKEN = "Bearer graphql-token-that-is-secret"


class GraphQLServer(Engine):
    """A process of `harness.apis.graphql_server`."""

    def command(self) -> list[str]:
        python = ["/usr/bin/env", f"PYTHONPATH={TESTS}", sys.executable]
        return [*python, "-m", "harness.apis.graphql_server", str(self.port)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    def asked(self) -> list[dict[str, Any]]:
        """The operations that reached it."""
        found: list[dict[str, Any]] = self._told("asked")
        return found

    def traced(self) -> str:
        """The trace of the latest request."""
        return str(self._told("trace"))

    def _told(self, what: str) -> Any:
        with urllib.request.urlopen(self.url.replace("graphql", what)) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphQLServer]:
    with GraphQLServer(tmp_path_factory.mktemp("graphql")).running() as made:
        yield made


async def opened(server: GraphQLServer, **declared: Any) -> CallRunner:
    made = CallRunner()
    result = Server(graphql=server.url, **declared)
    await made.open(GraphQLUpstream(result, {"Authorization": TOKEN}, made.news, AT_LOOPBACK))
    return made


@pytest.fixture
async def bench(server: GraphQLServer) -> AsyncIterator[CallRunner]:
    made = await opened(server)
    try:
        yield made
    finally:
        await made.close()


async def test_every_field_of_query_and_mutation_is_a_tool(bench: CallRunner) -> None:
    tools = {each.name: each.definition for each in bench.listing.tools}
    assert set(tools) == {
        "book", "books", "search", "count", "fail", "addBook", "mutation_count",
    }  # fmt: skip
    assert tools["book"]["description"] == "A book by its id."
    assert tools["book"]["inputSchema"]["required"] == ["id"]
    assert tools["books"]["annotations"] == {"readOnlyHint": True}
    assert tools["addBook"]["annotations"] == {"readOnlyHint": False}
    result = with_left_out(bench.listing, bench.upstream.left_out).dropped
    assert set(result) == {"subscription", "query:needy"}


async def test_input_objects_that_hold_each_other_are_described_once(bench: CallRunner) -> None:
    (books,) = [each.definition for each in bench.listing.tools if each.name == "books"]
    schema = books["inputSchema"]
    assert set(schema["$defs"]) == {"Filter"}
    inner = schema["$defs"]["Filter"]["properties"]["any"]
    assert inner == {"type": ["array", "null"], "items": {"$ref": "#/$defs/Filter"}}
    assert schema["$defs"]["Filter"]["properties"]["genre"] == {"enum": ["NOVEL", "ESSAY", None]}
    deep = {"any": [{"any": [{"genre": "NOVEL"}]}]}
    assert (await bench.call("books", {"filter": deep, "genres": ["ESSAY"]})).last["content"]


async def test_a_call_brings_the_plain_fields_and_those_of_what_is_near(bench: CallRunner) -> None:
    answer = (await bench.call("book", {"id": "1"})).last
    author = {"name": "Ursula"}
    book = {"id": "1", "title": "Tehanu", "genre": "NOVEL", "author": author}
    assert answer["structuredContent"] == book
    assert json.loads(answer["content"][0]["text"]) == book
    assert (await bench.call("book", {"id": "2"})).text == "null"


async def test_arguments_travel_as_variables_and_only_those_that_were_given(
    server: GraphQLServer, bench: CallRunner
) -> None:
    given = {"input": {"title": '"}{', "author": "x"}}
    answer = (await bench.call("addBook", given)).last
    assert answer["structuredContent"]["title"] == '"}{'
    assert answer["structuredContent"]["genre"] == "NOVEL"
    arrived = server.asked()[-1]
    assert arrived["variables"] == given
    assert arrived["query"].startswith("mutation($input:NewBook!){addBook(input:$input){")
    await bench.call("books", {"first": None})
    assert server.asked()[-1]["query"].startswith("query($first:Int){books(first:$first){")


async def test_a_caller_says_what_it_wants_back_by_paths(bench: CallRunner) -> None:
    chosen = {"id": "1", "select": ["title", "author.books.title", "author.name"]}
    answer = (await bench.call("book", chosen)).last["structuredContent"]
    author = {"books": [{"title": "Tehanu"}], "name": "Ursula"}
    assert answer == {"title": "Tehanu", "author": author}
    # An argument has that name here, and the types of a union are steps too.
    text = (await bench.call("search", {"select": "x", "select_": ["Book.title", "Author"]})).text
    assert json.loads(text) == [{"title": "Tehanu"}, {"name": "Ursula"}]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("titel", "'titel' in select does not exist; Book has: author, genre, id, title"),
        ("title.x", "does not exist; String has: nothing"),
        ("similar.id", "needs arguments"),
        (".".join(["author"] * 9), "deeper than 8"),
        ("title}}{__schema", "does not exist"),
    ],
)
async def test_a_path_that_leads_nowhere_is_told_with_what_there_is_and_nothing_is_sent(
    server: GraphQLServer, bench: CallRunner, path: str, words: str
) -> None:
    before = len(server.asked())
    error = (await bench.call("book", {"id": "1", "select": [path]})).error
    assert isinstance(error, InvalidArgumentsError)
    assert words in error.reason
    assert (bench.outcome.charge, bench.outcome.sent) == (0, False)
    assert len(server.asked()) == before


async def test_an_error_is_the_tools_own_and_repeats_no_secret(bench: CallRunner) -> None:
    failed = await bench.call("fail")
    assert failed.last["isError"] is True
    assert failed.text == "No stock (at fail)"
    text = (await bench.call("fail", {"secret": True})).text
    assert text == "No stock (secret) (at fail)"


async def test_operations_say_which_fields_become_tools(server: GraphQLServer) -> None:
    wanted = Operations(include=("*book*", "mutation:*"), exclude=("mutation:count",))
    made = await opened(server, operations=wanted)
    try:
        assert {each.name for each in made.listing.tools} == {"book", "books", "addBook"}
    finally:
        await made.close()


async def test_a_server_without_an_introspection_says_what_to_do(server: GraphQLServer) -> None:
    made = CallRunner()
    url = server.url.replace("/graphql", "/asked")
    upstream = GraphQLUpstream(Server(graphql=url), {}, made.news, AT_LOOPBACK)
    try:
        with pytest.raises(UpstreamFaultError, match=r"\(HTTP 405\): the response to"):
            await upstream.open()
    finally:
        await upstream.close()


async def test_an_api_that_is_gone_is_dead(tmp_path: Any) -> None:
    server = GraphQLServer(tmp_path)
    server.start()
    try:
        made = await opened(server)
        try:
            server.kill()
            assert isinstance((await made.call("count")).error, UpstreamDeadError)
        finally:
            await made.close()
    finally:
        server.kill()


async def test_the_api_is_told_of_the_calls_trace(server: GraphQLServer, bench: CallRunner) -> None:
    trace = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
    await bench.call("count", {}, traceparent=trace)
    assert server.traced() == trace
