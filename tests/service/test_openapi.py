"""HTTP APIs as servers, against a REST server in a process of its own."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from time import time
from typing import Any

import pytest

from harness.apis.rest_document import document
from harness.apis.rest_process import RestServer
from harness.services.call_runner import AT_LOOPBACK, CallRunner, ReplyRecorder
from toolbus_common.circuit_breaker import Breaker
from toolbus_common.config import Server
from toolbus_common.contracts import CallCompleted, CallFailed, CatalogEntry
from toolbus_common.errors import (
    BreakerOpenError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from toolbus_common.openapi import BINDING
from toolbus_executor.upstreams.listing import with_left_out
from toolbus_executor.upstreams.openapi.upstream import OpenApiUpstream

SECRETS = {"token": "token-that-is-secret", "key": "key that/is&secret"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RestServer, RestServer]]:
    """Run the API, and another server it might redirect to."""
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
    """Return the API, reset to its first state."""
    started[0].describe(document())
    started[0].forget()
    return started[0]


@pytest.fixture
async def client(rest: RestServer) -> AsyncIterator[CallRunner]:
    """Run a server of the API."""
    client = CallRunner()
    await client.open(upstream(client, openapi=rest.document))
    yield client
    await client.close()


def upstream(
    client: CallRunner, headers: dict[str, str] | None = None, **configuration: Any
) -> OpenApiUpstream:
    return OpenApiUpstream(
        Server(**configuration), headers or {}, SECRETS, client.news, AT_LOOPBACK
    )


async def arrived(
    rest: RestServer, client: CallRunner, tool: str, arguments: Any
) -> dict[str, Any]:
    """Return the request of a call at the API."""
    rest.forget()
    answers = await client.call(tool, arguments)
    assert not answers.last.get("isError"), answers.last
    (request,) = rest.seen()
    return request


def refused(answers: ReplyRecorder) -> str:
    """Return the reason a call with invalid arguments was rejected."""
    assert isinstance(answers.error, UpstreamRefusedError)
    assert answers.error.data["upstream_code"] == -32602
    return answers.error.reason


async def test_operations_become_tools_and_an_unsupported_one_is_dropped_with_its_reason(
    client: CallRunner,
) -> None:
    tools = {each.name: each.definition for each in client.listing.tools}
    assert {"listPets", "createPet", "getPet", "lookForPet", "uploadPhoto"} <= set(tools)
    assert "broken" not in tools
    listing = with_left_out(client.listing, client.upstream.left_out)
    assert "refers to another document" in listing.dropped["broken"]
    assert tools["getPet"]["annotations"]["readOnlyHint"] is True
    assert tools["deletePet"]["annotations"]["destructiveHint"] is True
    assert client.described.instructions.startswith("Pets")


async def test_arguments_are_sent_where_the_document_puts_them(
    rest: RestServer, client: CallRunner
) -> None:
    fields = {
        "limit": 5,
        "tags": ["a b", "c&d"],
        "filter": {"name": "=x", "age": {"min": 1}},
        "X-Trace": "t1",
    }
    request = await arrived(rest, client, "listPets", fields)
    assert request["path"] == "/api/v1/pets"
    assert request["pairs"] == [
        ["limit", "5"],
        ["tags", "a b"],
        ["tags", "c&d"],
        ["filter[name]", "=x"],
        ["filter[age][min]", "1"],
    ]
    assert request["headers"]["x-trace"] == "t1"
    request = await arrived(rest, client, "getPet", {"petId": "a/b?c#d%2e"})
    assert request["path"] == "/api/v1/pets/a%2Fb%3Fc%23d%252e"


async def test_each_operation_gets_only_the_credential_it_requires(
    rest: RestServer, client: CallRunner
) -> None:
    request = await arrived(rest, client, "listPets", {})
    assert request["headers"]["authorization"] == "Bearer token-that-is-secret"
    assert request["query"] == ""
    request = await arrived(rest, client, "createPet", {"body": {"name": "Rex"}})
    assert request["pairs"] == [["api_key", SECRETS["key"]]]
    assert "authorization" not in request["headers"]
    assert request["body"] == {"name": "Rex"}
    request = await arrived(rest, client, "getPet", {"petId": "1"})
    assert "authorization" not in request["headers"]
    assert request["query"] == ""


async def test_forms_and_files_are_sent_as_a_framework_reads_them(
    rest: RestServer, client: CallRunner
) -> None:
    body: dict[str, Any] = {"user": "ü & co", "roles": ["a", "b"]}
    request = await arrived(rest, client, "logIn", {"body": body})
    assert request["body"] == [["user", "ü & co"], ["roles", "a"], ["roles", "b"]]
    photo = {"data": base64.b64encode(b"\x00\xff\r\n--").decode(), "filename": 'a"\r\nb.png'}
    body = {"photo": photo, "caption": "Hm", "about": {"a": [1]}}
    request = await arrived(rest, client, "uploadPhoto", {"petId": "1", "body": body})
    name, (filename, media, data) = request["body"][0]
    assert (name, media, data) == ("photo", "application/octet-stream", "\x00\xff\r\n--")
    assert filename == "a%22%0D%0Ab.png"
    assert request["body"][1:] == [["caption", "Hm"], ["about", '{"a":[1]}']]


async def test_answers_are_returned_by_their_media_type(client: CallRunner) -> None:
    pets = (await client.call("listPets")).last
    assert json.loads(pets["content"][0]["text"]) == [{"id": 1, "name": "Rex"}]
    assert "page=2" in pets["content"][1]["text"]
    assert "structuredContent" not in pets
    pet = (await client.call("getPet", {"petId": "Rex"})).last
    assert pet["structuredContent"] == {"id": 1, "name": "Rex", "tag": None}
    photo = (await client.call("getPhoto", {"petId": "1"})).last["content"][0]
    assert (photo["type"], photo["mimeType"]) == ("image", "image/png")
    assert base64.b64decode(photo["data"]).startswith(b"\x89PNG")
    assert "no content" in (await client.call("deletePet", {"petId": "1"})).text
    headers = (await client.call("lookForPet", {"petId": "1"})).text
    assert headers.splitlines()[0] == "HTTP 200"
    assert "content-length: 12345" in headers
    assert (await client.call("getPet", {"petId": "Rex"})).last["structuredContent"][
        "name"
    ] == "Rex"


@pytest.mark.parametrize("size", [7 * 1024 * 1024 - 1, 20 * 1024 * 1024])
async def test_an_answer_too_large_to_return_fails_alone(client: CallRunner, size: int) -> None:
    answers = await client.call("large", {"size": size})
    if isinstance(client.outcome, CallFailed):
        assert "too large" in answers.error.reason
    else:
        assert answers.last["isError"]
        assert "request less" in answers.text
    assert (await client.call("large", {"size": 3})).text == "xxx"


async def test_an_error_of_the_api_is_a_result_without_the_credentials(client: CallRunner) -> None:
    answers = await client.call("fail", {"status": 404, "text": "No\u202e such pet"})
    assert answers.last["isError"] is True
    assert answers.text == "HTTP 404 Not Found: No such pet Bearer (secret)"
    assert isinstance(client.outcome, CallCompleted)
    assert client.outcome.is_error
    long = await client.call("fail", {"status": 500, "text": "x" * 6000})
    assert len(long.text) < 4100
    assert not client.runner.breaker.circuit.failures


async def test_an_unavailable_api_opens_the_breaker(client: CallRunner) -> None:
    client.runner.breaker.circuit = Breaker(pause=60.0)  # it stays open meanwhile
    for _ in range(5):
        error = (await client.call("fail", {"status": 503})).error
        assert isinstance(error, UpstreamDeadError)
    assert isinstance((await client.call("getPet", {"petId": "1"})).error, BreakerOpenError)


async def test_invalid_arguments_are_rejected_unsent_and_free(rest: RestServer) -> None:
    client = CallRunner(validation="none")
    await client.open(upstream(client, openapi=rest.document))
    for tool, arguments, words in (
        ("getPet", {}, "'petId' is missing"),
        ("getPet", {"petId": "1", "pet": 2}, "no argument 'pet'; known names: petId"),
        ("getPet", {"petId": "../admin"}, "change the path"),
        ("getPet", {"petId": "%252e%252e"}, "change the path"),
        ("deletePet", {"petId": ""}, "petId is empty"),
        ("listPets", {"X-Trace": "a\r\nX-Evil: 1"}, "line break"),
        ("uploadPhoto", {"petId": "1", "body": {"photo": {"data": "%"}}}, "must be base64"),
    ):
        assert words in refused(await client.call(tool, arguments))
        assert (client.outcome.charge, client.outcome.sent) == (0, False)
    assert rest.seen() == []
    await client.close()


async def test_a_redirect_is_followed_on_its_origin_and_credentials_never_leave_it(
    started: tuple[RestServer, RestServer], rest: RestServer, client: CallRunner
) -> None:
    other = started[1]
    other.forget()
    assert json.loads((await client.call("moved")).text) == [{"id": 1, "name": "Rex"}]
    assert [each["path"] for each in rest.seen()] == ["/api/v1/moved", "/api/v1/pets"]
    for target in (f"{other.origin}/api/v1/pets", f"//127.0.0.1:{other.port}/api/v1/pets"):
        answers = await client.call("away", {"to": target})
        assert answers.last["isError"]
        assert "not followed" in answers.text
    assert other.seen() == []


async def test_a_fetched_document_cannot_send_credentials_to_another_origin(
    started: tuple[RestServer, RestServer], rest: RestServer
) -> None:
    rest.describe(document() | {"servers": [{"url": f"{started[1].origin}/api/v1"}]})
    client = CallRunner()
    with pytest.raises(UpstreamInvalidError, match="set base_url"):
        await upstream(client, openapi=rest.document).open()
    declared = upstream(client, openapi=rest.document, base_url=f"{started[1].origin}/api/v1")
    await client.open(declared)
    started[1].forget()
    assert not (await client.call("getPet", {"petId": "1"})).last.get("isError")
    assert [each["path"] for each in started[1].seen()] == ["/api/v1/pets/1"]
    await client.close()


async def test_a_changed_document_changes_the_list_and_a_lost_one_does_not(
    rest: RestServer, client: CallRunner
) -> None:
    assert client.listing.ttl_ms == 300_000
    changed = document()
    del changed["paths"]["/login"]
    rest.describe(changed)
    tools = (await client.upstream.list_page("tools/list", None))["tools"]
    assert "logIn" not in {each["name"] for each in tools}
    for broken in (None, {"openapi": "2"}, {"openapi": "3.0.0", "paths": []}):
        rest.describe(broken)
        with pytest.raises(ToolbusError):
            await client.upstream.list_page("tools/list", None)
    assert (await client.call("getPet", {"petId": "Rex"})).last["structuredContent"]["id"] == 1


async def test_a_tool_with_a_changed_meaning_is_listed_again_before_it_is_called(
    rest: RestServer, client: CallRunner
) -> None:
    changed = document()
    changed["paths"]["/animals/{petId}"] = changed["paths"].pop("/pets/{petId}")
    rest.describe(changed)
    elsewhere = CallRunner()  # another replica, which has read the document since
    await elsewhere.open(upstream(elsewhere, openapi=rest.document))
    (new,) = [each for each in elsewhere.listing.tools if each.name == "getPet"]
    (old,) = [each for each in client.listing.tools if each.name == "getPet"]
    assert new.digest != old.digest
    client.upstream.learn(elsewhere.listing.tools)
    rest.forget()
    assert not (await client.call("getPet", {"petId": "1"})).last.get("isError")
    assert [each["path"] for each in rest.seen()] == ["/api/v1/animals/1"]
    gone = CatalogEntry(name="getPet", definition={"_meta": {BINDING: "another"}})
    rest.describe({**changed, "paths": {}})
    client.upstream.learn([gone])
    assert "list the tools again" in (await client.call("getPet", {"petId": "1"})).error.reason
    await elsewhere.close()


async def test_a_slow_api_is_cancelled_at_the_deadline_and_its_late_answer_is_dropped(
    client: CallRunner,
) -> None:
    answers = await client.call("slow", deadline=time() + 0.5)
    assert isinstance(answers.error, UpstreamTimeoutError)
    assert (await client.call("getPet", {"petId": "Rex"})).last["structuredContent"]["id"] == 1


async def test_only_the_selected_operations_become_tools(rest: RestServer) -> None:
    client = CallRunner()
    for patterns, expected in (
        ({"include": ["tag:pets"], "exclude": ["tag:danger"]}, {"listPets", "createPet", "getPet"}),
        ({"include": ["GET /pets/*"]}, {"getPet", "getPhoto"}),
        ({"include": ["/login", "getP*"], "exclude": ["*Photo"]}, {"logIn", "getPet"}),
    ):
        await client.open(upstream(client, openapi=rest.document, operations=patterns))
        assert {each.name for each in client.listing.tools} == expected
        await client.close()


async def test_a_configured_header_is_sent_and_no_caller_can_replace_it(rest: RestServer) -> None:
    client = CallRunner(validation="none")
    await client.open(upstream(client, {"X-Trace": "ours"}, openapi=rest.document))
    assert "no argument 'X-Trace'" in refused(await client.call("listPets", {"X-Trace": "mine"}))
    request = await arrived(rest, client, "listPets", {})
    assert request["headers"]["x-trace"] == "ours"
    await client.close()


async def test_a_credential_of_no_security_scheme_is_reported(rest: RestServer) -> None:
    client = CallRunner()
    server = Server(openapi=rest.document)
    await client.open(OpenApiUpstream(server, {}, {"tokn": "x"}, client.news, AT_LOOPBACK))
    assert client.upstream.left_out["credentials.tokn"].endswith("it has: token, key")
    await client.close()


@pytest.mark.parametrize(("validation", "fails"), [("both", True), ("arguments", False)])
async def test_with_validation_a_result_that_violates_its_schema_is_the_servers_error(
    rest: RestServer, validation: str, *, fails: bool
) -> None:
    lying = document()
    lying["components"]["schemas"]["Pet"]["properties"]["name"] = {"type": "integer"}
    rest.describe(lying)
    client = CallRunner(validation=validation)
    try:
        await client.open(upstream(client, openapi=rest.document))
        answers = await client.call("getPet", {"petId": "Rex"})
        if not fails:
            assert answers.last["structuredContent"]["id"] == 1
            return
        assert isinstance(answers.error, UpstreamInvalidError)
        assert "violates the outputSchema of getPet: 'name' must be" in answers.error.reason
        assert (client.outcome.charge, client.outcome.sent) == (5, True)
        assert client.runner.status()["failures"][-1]["code"] == "upstream_invalid"
    finally:
        await client.close()


async def test_the_api_receives_the_trace_and_baggage_of_the_call(
    rest: RestServer, client: CallRunner
) -> None:
    rest.forget()
    trace = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
    await client.call("listPets", {}, traceparent=trace, tracestate="a=b", baggage="c=d")
    (request,) = rest.seen()
    fields = {name: request["headers"][name] for name in ("traceparent", "tracestate", "baggage")}
    assert fields == {"traceparent": trace, "tracestate": "a=b", "baggage": "c=d"}
