"""GraphQL APIs as servers, against graphql-core in a process of its own."""

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
from toolbus_common.errors import InvalidArgumentsError, UpstreamDeadError, UpstreamInvalidError
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

    def operations(self) -> list[dict[str, Any]]:
        """Return the operations that reached it."""
        found: list[dict[str, Any]] = self._fetch("asked")
        return found

    def traced(self) -> str:
        """Return the trace of the latest request."""
        return str(self._fetch("trace"))

    def _fetch(self, what: str) -> Any:
        with urllib.request.urlopen(self.url.replace("graphql", what)) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphQLServer]:
    with GraphQLServer(tmp_path_factory.mktemp("graphql")).running() as server:
        yield server


async def opened(server: GraphQLServer, **declared: Any) -> CallRunner:
    client = CallRunner()
    result = Server(graphql=server.url, **declared)
    await client.open(GraphQLUpstream(result, {"Authorization": TOKEN}, client.news, AT_LOOPBACK))
    return client


@pytest.fixture
async def client(server: GraphQLServer) -> AsyncIterator[CallRunner]:
    client = await opened(server)
    try:
        yield client
    finally:
        await client.close()


async def test_every_field_of_query_and_mutation_is_a_tool(client: CallRunner) -> None:
    tools = {each.name: each.definition for each in client.listing.tools}
    assert set(tools) == {
        "book", "books", "search", "count", "fail", "addBook", "mutation_count",
    }  # fmt: skip
    assert tools["book"]["description"] == "A book by its id."
    assert tools["book"]["inputSchema"]["required"] == ["id"]
    assert tools["books"]["annotations"] == {"readOnlyHint": True}
    assert tools["addBook"]["annotations"] == {"readOnlyHint": False}
    result = with_left_out(client.listing, client.upstream.left_out).dropped
    assert set(result) == {"subscription", "query:needy"}


async def test_recursive_input_objects_are_described_once(client: CallRunner) -> None:
    (books,) = [each.definition for each in client.listing.tools if each.name == "books"]
    schema = books["inputSchema"]
    assert set(schema["$defs"]) == {"Filter"}
    inner = schema["$defs"]["Filter"]["properties"]["any"]
    assert inner == {"type": ["array", "null"], "items": {"$ref": "#/$defs/Filter"}}
    assert schema["$defs"]["Filter"]["properties"]["genre"] == {"enum": ["NOVEL", "ESSAY", None]}
    deep = {"any": [{"any": [{"genre": "NOVEL"}]}]}
    assert (await client.call("books", {"filter": deep, "genres": ["ESSAY"]})).last["content"]


async def test_a_call_returns_the_scalar_fields_of_the_object_and_its_neighbours(
    client: CallRunner,
) -> None:
    answer = (await client.call("book", {"id": "1"})).last
    author = {"name": "Ursula"}
    book = {"id": "1", "title": "Tehanu", "genre": "NOVEL", "author": author}
    assert answer["structuredContent"] == book
    assert json.loads(answer["content"][0]["text"]) == book
    assert (await client.call("book", {"id": "2"})).text == "null"


async def test_only_the_given_arguments_are_sent_as_variables(
    server: GraphQLServer, client: CallRunner
) -> None:
    given = {"input": {"title": '"}{', "author": "x"}}
    answer = (await client.call("addBook", given)).last
    assert answer["structuredContent"]["title"] == '"}{'
    assert answer["structuredContent"]["genre"] == "NOVEL"
    arrived = server.operations()[-1]
    assert arrived["variables"] == given
    assert arrived["query"].startswith("mutation($input:NewBook!){addBook(input:$input){")
    await client.call("books", {"first": None})
    assert server.operations()[-1]["query"].startswith("query($first:Int){books(first:$first){")


async def test_a_caller_selects_fields_by_paths(client: CallRunner) -> None:
    chosen = {"id": "1", "select": ["title", "author.books.title", "author.name"]}
    answer = (await client.call("book", chosen)).last["structuredContent"]
    author = {"books": [{"title": "Tehanu"}], "name": "Ursula"}
    assert answer == {"title": "Tehanu", "author": author}
    # Here an argument is named `select`, and the types of a union are steps too.
    text = (await client.call("search", {"select": "x", "select_": ["Book.title", "Author"]})).text
    assert json.loads(text) == [{"title": "Tehanu"}, {"name": "Ursula"}]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("titel", "'titel' in 'select' does not exist; Book has: author, genre, id, title"),
        ("title.x", "does not exist; String has: nothing"),
        ("similar.id", "needs arguments"),
        (".".join(["author"] * 9), "deeper than 8"),
        ("title}}{__schema", "does not exist"),
    ],
)
async def test_an_invalid_path_is_rejected_unsent_with_the_alternatives(
    server: GraphQLServer, client: CallRunner, path: str, words: str
) -> None:
    before = len(server.operations())
    error = (await client.call("book", {"id": "1", "select": [path]})).error
    assert isinstance(error, InvalidArgumentsError)
    assert words in error.reason
    assert (client.outcome.charge, client.outcome.sent) == (0, False)
    assert len(server.operations()) == before


async def test_an_error_is_a_tool_error_without_the_secret(client: CallRunner) -> None:
    failed = await client.call("fail")
    assert failed.last["isError"] is True
    assert failed.text == "No stock (at fail)"
    text = (await client.call("fail", {"secret": True})).text
    assert text == "No stock (secret) (at fail)"


async def test_operations_select_the_fields_that_become_tools(server: GraphQLServer) -> None:
    operations = Operations(include=("*book*", "mutation:*"), exclude=("mutation:count",))
    client = await opened(server, operations=operations)
    try:
        assert {each.name for each in client.listing.tools} == {"book", "books", "addBook"}
    finally:
        await client.close()


async def test_a_server_without_introspection_reports_the_fix(server: GraphQLServer) -> None:
    client = CallRunner()
    url = server.url.replace("/graphql", "/asked")
    upstream = GraphQLUpstream(Server(graphql=url), {}, client.news, AT_LOOPBACK)
    try:
        with pytest.raises(UpstreamInvalidError, match=r"\(HTTP 405\): the response to"):
            await upstream.open()
    finally:
        await upstream.close()


async def test_a_stopped_api_is_dead(tmp_path: Any) -> None:
    server = GraphQLServer(tmp_path)
    server.start()
    try:
        client = await opened(server)
        try:
            server.kill()
            assert isinstance((await client.call("count")).error, UpstreamDeadError)
        finally:
            await client.close()
    finally:
        server.kill()


async def test_the_api_receives_the_trace_of_the_call(
    server: GraphQLServer, client: CallRunner
) -> None:
    trace = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
    await client.call("count", {}, traceparent=trace)
    assert server.traced() == trace
