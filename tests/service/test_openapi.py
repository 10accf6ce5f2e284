"""HTTP APIs as upstreams, against a REST server of our own in a process of its own."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from time import time
from typing import Any

import pytest

from harness.apis.rest_document import document
from harness.apis.rest_process import RestServer
from harness.services.call_runner import AT_LOOPBACK, CallRunner, ReplyRecorder
from toolbus_common.config import Server
from toolbus_common.contracts import CallCompleted, CallFailed, CatalogEntry
from toolbus_common.errors import (
    BreakerOpenError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamFaultError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from toolbus_common.openapi import BINDING
from toolbus_executor.resilience.circuit_breaker import Breaker
from toolbus_executor.upstreams.listing import with_left_out
from toolbus_executor.upstreams.openapi.upstream import OpenApiUpstream

SECRETS = {"token": "token-that-is-secret", "key": "key that/is&secret"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RestServer, RestServer]]:
    """The API, and another server it might lead to."""
    servers = tuple(RestServer(tmp_path_factory.mktemp("rest")) for _ in range(2))
    try:
        for server in servers:
            server.start()
        yield servers[0], servers[1]
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
def rest(started: tuple[RestServer, RestServer]) -> RestServer:
    """The API, as it was in the beginning."""
    started[0].describe(document())
    started[0].forget()
    return started[0]


@pytest.fixture
async def bench(rest: RestServer) -> AsyncIterator[CallRunner]:
    """A runner over the API."""
    made = CallRunner()
    await made.open(upstream(made, openapi=rest.document))
    yield made
    await made.close()


def upstream(
    made: CallRunner, headers: dict[str, str] | None = None, **told: Any
) -> OpenApiUpstream:
    return OpenApiUpstream(Server(**told), headers or {}, SECRETS, made.news, AT_LOOPBACK)


async def arrived(rest: RestServer, bench: CallRunner, tool: str, arguments: Any) -> dict[str, Any]:
    """What a call led to at the API."""
    rest.forget()
    answers = await bench.call(tool, arguments)
    assert not answers.last.get("isError"), answers.last
    (request,) = rest.seen()
    return request


def refused(answers: ReplyRecorder) -> str:
    """What a call with arguments that cannot be sent is told."""
    assert isinstance(answers.error, UpstreamRefusedError)
    assert answers.error.data["upstream_code"] == -32602
    return answers.error.reason


async def test_operations_become_tools_and_one_that_cannot_is_left_out_with_its_reason(
    bench: CallRunner,
) -> None:
    tools = {each.name: each.definition for each in bench.listing.tools}
    assert {"listPets", "createPet", "getPet", "lookForPet", "uploadPhoto"} <= set(tools)
    assert "broken" not in tools
    listing = with_left_out(bench.listing, bench.upstream.left_out)
    assert "refers to another document" in listing.dropped["broken"]
    assert tools["getPet"]["annotations"]["readOnlyHint"] is True
    assert tools["deletePet"]["annotations"]["destructiveHint"] is True
    assert bench.described.instructions.startswith("Pets")


async def test_arguments_reach_the_api_where_its_document_puts_them(
    rest: RestServer, bench: CallRunner
) -> None:
    fields = {
        "limit": 5,
        "tags": ["a b", "c&d"],
        "filter": {"name": "=x", "age": {"min": 1}},
        "X-Trace": "t1",
    }
    request = await arrived(rest, bench, "listPets", fields)
    assert request["path"] == "/api/v1/pets"
    assert request["pairs"] == [
        ["limit", "5"],
        ["tags", "a b"],
        ["tags", "c&d"],
        ["filter[name]", "=x"],
        ["filter[age][min]", "1"],
    ]
    assert request["headers"]["x-trace"] == "t1"
    request = await arrived(rest, bench, "getPet", {"petId": "a/b?c#d%2e"})
    assert request["path"] == "/api/v1/pets/a%2Fb%3Fc%23d%252e"


async def test_each_operation_gets_the_credential_it_wants_and_no_other(
    rest: RestServer, bench: CallRunner
) -> None:
    request = await arrived(rest, bench, "listPets", {})
    assert request["headers"]["authorization"] == "Bearer token-that-is-secret"
    assert request["query"] == ""
    request = await arrived(rest, bench, "createPet", {"body": {"name": "Rex"}})
    assert request["pairs"] == [["api_key", SECRETS["key"]]]
    assert "authorization" not in request["headers"]
    assert request["body"] == {"name": "Rex"}
    request = await arrived(rest, bench, "getPet", {"petId": "1"})
    assert "authorization" not in request["headers"]
    assert request["query"] == ""


async def test_forms_and_files_arrive_as_a_framework_reads_them(
    rest: RestServer, bench: CallRunner
) -> None:
    body: dict[str, Any] = {"user": "ü & co", "roles": ["a", "b"]}
    request = await arrived(rest, bench, "logIn", {"body": body})
    assert request["body"] == [["user", "ü & co"], ["roles", "a"], ["roles", "b"]]
    photo = {"data": base64.b64encode(b"\x00\xff\r\n--").decode(), "filename": 'a"\r\nb.png'}
    body = {"photo": photo, "caption": "Hm", "about": {"a": [1]}}
    request = await arrived(rest, bench, "uploadPhoto", {"petId": "1", "body": body})
    name, (filename, media, data) = request["body"][0]
    assert (name, media, data) == ("photo", "application/octet-stream", "\x00\xff\r\n--")
    assert filename == "a%22%0D%0Ab.png"
    assert request["body"][1:] == [["caption", "Hm"], ["about", '{"a":[1]}']]


async def test_answers_are_told_by_their_kind(bench: CallRunner) -> None:
    pets = (await bench.call("listPets")).last
    assert json.loads(pets["content"][0]["text"]) == [{"id": 1, "name": "Rex"}]
    assert "page=2" in pets["content"][1]["text"]
    assert "structuredContent" not in pets
    pet = (await bench.call("getPet", {"petId": "Rex"})).last
    assert pet["structuredContent"] == {"id": 1, "name": "Rex", "tag": None}
    photo = (await bench.call("getPhoto", {"petId": "1"})).last["content"][0]
    assert (photo["type"], photo["mimeType"]) == ("image", "image/png")
    assert base64.b64decode(photo["data"]).startswith(b"\x89PNG")
    assert "no content" in (await bench.call("deletePet", {"petId": "1"})).text
    looked = (await bench.call("lookForPet", {"petId": "1"})).text
    assert looked.splitlines()[0] == "HTTP 200"
    assert "content-length: 12345" in looked
    assert (await bench.call("getPet", {"petId": "Rex"})).last["structuredContent"]["name"] == "Rex"


@pytest.mark.parametrize("size", [7 * 1024 * 1024 - 1, 20 * 1024 * 1024])
async def test_an_answer_too_large_to_be_passed_on_fails_alone(
    bench: CallRunner, size: int
) -> None:
    answers = await bench.call("large", {"size": size})
    if isinstance(bench.outcome, CallFailed):
        assert "too large" in answers.error.reason
    else:
        assert answers.last["isError"]
        assert "request less" in answers.text
    assert (await bench.call("large", {"size": 3})).text == "xxx"


async def test_an_error_of_the_api_is_a_result_without_our_secrets(bench: CallRunner) -> None:
    answers = await bench.call("fail", {"status": 404, "text": "No\u202e such pet"})
    assert answers.last["isError"] is True
    assert answers.text == "HTTP 404 Not Found: No such pet Bearer (secret)"
    assert isinstance(bench.outcome, CallCompleted)
    assert bench.outcome.is_error
    long = await bench.call("fail", {"status": 500, "text": "x" * 6000})
    assert len(long.text) < 4100
    assert not bench.runner.breaker.circuit.failing


async def test_an_api_that_is_not_there_opens_the_breaker(bench: CallRunner) -> None:
    bench.runner.breaker.circuit = Breaker(pause=60.0)  # it stays open meanwhile
    for _ in range(5):
        error = (await bench.call("fail", {"status": 503})).error
        assert isinstance(error, UpstreamDeadError)
    assert isinstance((await bench.call("getPet", {"petId": "1"})).error, BreakerOpenError)


async def test_arguments_that_cannot_be_sent_are_told_and_cost_nothing(rest: RestServer) -> None:
    bench = CallRunner(validation="none")
    await bench.open(upstream(bench, openapi=rest.document))
    for tool, arguments, words in (
        ("getPet", {}, "'petId' is missing"),
        ("getPet", {"petId": "1", "pet": 2}, "no argument 'pet'; there are: petId"),
        ("getPet", {"petId": "../admin"}, "lead to another path"),
        ("getPet", {"petId": "%252e%252e"}, "lead to another path"),
        ("deletePet", {"petId": ""}, "petId is empty"),
        ("listPets", {"X-Trace": "a\r\nX-Evil: 1"}, "line break"),
        ("uploadPhoto", {"petId": "1", "body": {"photo": {"data": "%"}}}, "must be base64"),
    ):
        assert words in refused(await bench.call(tool, arguments))
        assert (bench.outcome.charge, bench.outcome.sent) == (0, False)
    assert rest.seen() == []
    await bench.close()


async def test_a_redirection_is_followed_on_its_origin_and_credentials_never_leave_it(
    started: tuple[RestServer, RestServer], rest: RestServer, bench: CallRunner
) -> None:
    other = started[1]
    other.forget()
    assert json.loads((await bench.call("moved")).text) == [{"id": 1, "name": "Rex"}]
    assert [each["path"] for each in rest.seen()] == ["/api/v1/moved", "/api/v1/pets"]
    for place in (f"{other.origin}/api/v1/pets", f"//127.0.0.1:{other.port}/api/v1/pets"):
        answers = await bench.call("away", {"to": place})
        assert answers.last["isError"]
        assert "not followed" in answers.text
    assert other.seen() == []


async def test_a_fetched_document_cannot_send_credentials_to_another_place(
    started: tuple[RestServer, RestServer], rest: RestServer
) -> None:
    rest.describe(document() | {"servers": [{"url": f"{started[1].origin}/api/v1"}]})
    made = CallRunner()
    with pytest.raises(UpstreamFaultError, match="set base_url"):
        await upstream(made, openapi=rest.document).open()
    declared = upstream(made, openapi=rest.document, base_url=f"{started[1].origin}/api/v1")
    await made.open(declared)
    started[1].forget()
    assert not (await made.call("getPet", {"petId": "1"})).last.get("isError")
    assert [each["path"] for each in started[1].seen()] == ["/api/v1/pets/1"]
    await made.close()


async def test_a_document_that_changes_changes_the_list_and_one_that_is_lost_leaves_it(
    rest: RestServer, bench: CallRunner
) -> None:
    assert bench.listing.ttl_ms == 300_000
    changed = document()
    del changed["paths"]["/login"]
    rest.describe(changed)
    tools = (await bench.upstream.list_page("tools/list", None))["tools"]
    assert "logIn" not in {each["name"] for each in tools}
    for broken in (None, {"openapi": "2"}, {"openapi": "3.0.0", "paths": []}):
        rest.describe(broken)
        with pytest.raises(ToolbusError):
            await bench.upstream.list_page("tools/list", None)
    assert (await bench.call("getPet", {"petId": "Rex"})).last["structuredContent"]["id"] == 1


async def test_a_tool_that_stands_for_something_else_now_is_listed_anew_before_it_is_called(
    rest: RestServer, bench: CallRunner
) -> None:
    changed = document()
    changed["paths"]["/animals/{petId}"] = changed["paths"].pop("/pets/{petId}")
    rest.describe(changed)
    elsewhere = CallRunner()  # another replica, which has read the document since
    await elsewhere.open(upstream(elsewhere, openapi=rest.document))
    (new,) = [each for each in elsewhere.listing.tools if each.name == "getPet"]
    (old,) = [each for each in bench.listing.tools if each.name == "getPet"]
    assert new.digest != old.digest
    bench.upstream.learn(elsewhere.listing.tools)
    rest.forget()
    assert not (await bench.call("getPet", {"petId": "1"})).last.get("isError")
    assert [each["path"] for each in rest.seen()] == ["/api/v1/animals/1"]
    gone = CatalogEntry(name="getPet", definition={"_meta": {BINDING: "another"}})
    rest.describe({**changed, "paths": {}})
    bench.upstream.learn([gone])
    assert "list the tools again" in (await bench.call("getPet", {"petId": "1"})).error.reason
    await elsewhere.close()


async def test_a_slow_api_is_given_up_at_the_deadline_and_its_late_answer_meets_nobody(
    bench: CallRunner,
) -> None:
    answers = await bench.call("slow", deadline=time() + 0.5)
    assert isinstance(answers.error, UpstreamTimeoutError)
    assert (await bench.call("getPet", {"petId": "Rex"})).last["structuredContent"]["id"] == 1


async def test_only_the_operations_that_are_wanted_become_tools(rest: RestServer) -> None:
    made = CallRunner()
    for patterns, wanted in (
        ({"include": ["tag:pets"], "exclude": ["tag:danger"]}, {"listPets", "createPet", "getPet"}),
        ({"include": ["GET /pets/*"]}, {"getPet", "getPhoto"}),
        ({"include": ["/login", "getP*"], "exclude": ["*Photo"]}, {"logIn", "getPet"}),
    ):
        await made.open(upstream(made, openapi=rest.document, operations=patterns))
        assert {each.name for each in made.listing.tools} == wanted
        await made.close()


async def test_a_declared_header_is_sent_and_no_caller_can_say_another(rest: RestServer) -> None:
    made = CallRunner(validation="none")
    await made.open(upstream(made, {"X-Trace": "ours"}, openapi=rest.document))
    assert "no argument 'X-Trace'" in refused(await made.call("listPets", {"X-Trace": "mine"}))
    request = await arrived(rest, made, "listPets", {})
    assert request["headers"]["x-trace"] == "ours"
    await made.close()


async def test_a_credential_no_scheme_wants_is_told(rest: RestServer) -> None:
    made = CallRunner()
    server = Server(openapi=rest.document)
    await made.open(OpenApiUpstream(server, {}, {"tokn": "x"}, made.news, AT_LOOPBACK))
    assert made.upstream.left_out["credentials.tokn"].endswith("it has: token, key")
    await made.close()


@pytest.mark.parametrize(("validation", "fails"), [("both", True), ("arguments", False)])
async def test_a_result_that_breaks_its_schema_fails_as_the_servers_fault_where_that_is_asked(
    rest: RestServer, validation: str, *, fails: bool
) -> None:
    lying = document()
    lying["components"]["schemas"]["Pet"]["properties"]["name"] = {"type": "integer"}
    rest.describe(lying)
    bench = CallRunner(validation=validation)
    try:
        await bench.open(upstream(bench, openapi=rest.document))
        answers = await bench.call("getPet", {"petId": "Rex"})
        if not fails:
            assert answers.last["structuredContent"]["id"] == 1
            return
        assert isinstance(answers.error, UpstreamFaultError)
        assert "violates the outputSchema of getPet: 'name' must be" in answers.error.reason
        assert (bench.outcome.charge, bench.outcome.sent) == (5, True)
        assert bench.runner.status()["failures"][-1]["code"] == "upstream_fault"
    finally:
        await bench.close()


async def test_the_api_is_told_of_the_calls_trace_and_what_came_with_it(
    rest: RestServer, bench: CallRunner
) -> None:
    rest.forget()
    trace = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
    await bench.call("listPets", {}, traceparent=trace, tracestate="a=b", baggage="c=d")
    (request,) = rest.seen()
    fields = {name: request["headers"][name] for name in ("traceparent", "tracestate", "baggage")}
    assert fields == {"traceparent": trace, "tracestate": "a=b", "baggage": "c=d"}
