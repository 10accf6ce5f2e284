"""The executor's connections to the fixture server: every transport, in both families."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

import pytest

from conformance.upstream import FixtureServer
from harness.services.call_runner import AT_LOOPBACK, CallRunner, connected, input_responses
from harness.waits import PATIENCE, until
from toolbus_common.contracts import (
    CallCompleted,
    CallError,
    CallFailed,
    CallResult,
    InputRequired,
    Notification,
    Progress,
    ProtocolFamily,
    StreamPaused,
)
from toolbus_common.errors import CallCancelledError, UpstreamRefusedError
from toolbus_executor.upstreams.mcp.http import HttpUpstream
from toolbus_executor.upstreams.suspended_calls import owner_of

FORMS = '{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}'
WATCHED = "test://watched-resource"
LEGACY_KINDS = ("http legacy", "stdio legacy", "sse")
KINDS = ("http modern", "stdio modern", *LEGACY_KINDS)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FixtureServer]]:
    """Run the fixture server over HTTP, once for each family and once with HTTP+SSE."""
    options = {
        "http modern": ("--family", "modern"),
        "http legacy": ("--family", "legacy"),
        "sse": ("--sse", "--family", "legacy"),
    }
    found = {
        kind: FixtureServer(tmp_path_factory.mktemp("fixture"), *given)
        for kind, given in options.items()
    }
    for server in found.values():
        server.start()
    yield found
    for server in found.values():
        server.kill()


@pytest.fixture
async def client(
    request: pytest.FixtureRequest, servers: dict[str, FixtureServer], tmp_path: Path
) -> AsyncIterator[CallRunner]:
    """Run the fixture server of the kind the test names."""
    client = CallRunner()
    await client.open(connected(request.param, servers, client.news, tmp_path / "seen"))
    yield client
    await client.close()


@pytest.fixture
def fixture_requests(
    request: pytest.FixtureRequest, servers: dict[str, FixtureServer], tmp_path: Path
) -> Any:
    """Return a function that returns the requests at the fixture server."""
    kind = request.node.callspec.params["client"]

    def read() -> dict[str, Any]:
        if kind.startswith("stdio"):
            text = (tmp_path / "seen").read_text()  # another write may be in progress
            found: dict[str, Any] = {"tools": {}, "cancelled": {}}
            with suppress(ValueError):
                found = json.loads(text)
            return found
        return servers[kind].seen()

    return read


async def test_a_server_is_configured_as_http_sse(servers: dict[str, FixtureServer]) -> None:
    client = CallRunner()
    url = servers["sse"].url.replace("/mcp", "/sse")
    await client.open(HttpUpstream(url, {}, client.news, AT_LOOPBACK, protocol="sse"))
    assert (await client.call("test_echo", {"text": "hello"})).text == "hello"
    assert servers["sse"].seen()["methods"].get("server/discover") is None
    await client.close()


every_kind = pytest.mark.parametrize("client", KINDS, indirect=True)
modern_kinds = pytest.mark.parametrize("client", KINDS[:2], indirect=True)
every_legacy_kind = pytest.mark.parametrize("client", LEGACY_KINDS, indirect=True)
modern_http = pytest.mark.parametrize("client", ["http modern"], indirect=True)
legacy_http = pytest.mark.parametrize("client", ["http legacy"], indirect=True)


ACCEPTED = {"action": "accept", "content": {"name": "octocat", "step1": "x", "color": "red"}}


@every_kind
async def test_every_definition_of_a_server_is_listed(client: CallRunner) -> None:
    names = {offered.name for offered in client.listing.tools}
    assert {"test_simple_text", "test_x_mcp_header"} <= names
    assert "test_simple_prompt" in {offered.name for offered in client.listing.prompts}
    assert WATCHED in {offered.name for offered in client.listing.resources}
    assert [offered.name for offered in client.listing.templates] == ["test://template/{id}/data"]
    assert client.listing.capabilities["completions"] == {}
    assert client.listing.dropped == {}


@every_kind
async def test_a_tool_a_prompt_a_resource_and_a_completion_are_answered(client: CallRunner) -> None:
    assert (await client.call("test_echo", {"text": "hello"})).text == "hello"
    prompt = await client.call(
        "test_prompt_with_arguments", {"arg1": "a", "arg2": "b"}, method="prompts/get"
    )
    assert prompt.last["messages"]
    read = await client.call(WATCHED, {"uri": WATCHED}, method="resources/read")
    assert read.last["contents"][0]["text"] == "Watched resource content"
    assert {"ttlMs", "cacheScope", "resultType"} <= read.last.keys()
    reference = {"type": "ref/prompt", "name": "test_prompt_with_arguments"}
    request = {"ref": reference, "argument": {"name": "arg1", "value": "par"}}
    done = await client.call("x", request, method="completion/complete")
    assert "paris" in done.last["completion"]["values"]


@every_kind
async def test_a_servers_own_error_reaches_the_caller_unchanged(client: CallRunner) -> None:
    error = (await client.call("test_protocol_error")).error
    assert isinstance(error, UpstreamRefusedError)
    assert error.reason == "Out of order"
    assert error.data == {"upstream_code": -32603, "upstream_data": {"reason": "by design"}}
    assert not client.runner.breaker.circuit.failures


@every_kind
async def test_progress_arrives_in_order_and_before_the_answer(client: CallRunner) -> None:
    answers = await client.call("test_tool_with_progress", progress=True)
    steps = [json.loads(f.body)["progress"] for f in answers.frames if isinstance(f, Progress)]
    assert steps == [0, 50, 100]
    assert isinstance(answers.frames[-1], CallResult)


@every_kind
async def test_log_messages_reach_only_callers_that_requested_them(client: CallRunner) -> None:
    result = await client.call("test_tool_with_logging", log_level="info")
    logged = [f for f in result.frames if isinstance(f, Notification)]
    assert [f.method for f in logged] == ["notifications/message"] * 3
    assert not any(
        isinstance(f, Notification)
        for f in (await client.call("test_tool_with_logging", log_level="error")).frames
    )
    assert len((await client.call("test_tool_with_logging")).frames) == 1


@every_kind
async def test_a_form_is_requested_and_the_answer_completes_the_call(client: CallRunner) -> None:
    tool = "test_input_required_result_request_state"
    request = await client.call(tool, capabilities=FORMS)
    assert isinstance(request.frames[-1], InputRequired)
    assert isinstance(client.outcome, CallCompleted)
    assert (client.outcome.result_type, client.outcome.charge) == ("input_required", 0)
    answer = {"action": "accept", "content": {"ok": True}}
    extra = input_responses(request, elicitation=answer)
    done = await client.call(tool, capabilities=FORMS, extra=extra)
    assert done.text.startswith("state-ok")
    assert (client.outcome.result_type, client.outcome.charge) == ("complete", 5)


@every_legacy_kind
async def test_several_requests_come_in_one_round_and_missing_answers_are_requested_again(
    client: CallRunner,
) -> None:
    tool = "test_input_required_result_multiple_inputs"
    request = await client.call(tool, capabilities=FORMS)
    while len(request.last["inputRequests"]) < 3:  # a loaded machine can deliver them separately
        await asyncio.sleep(0.05)
        unanswered = input_responses(request)
        request = await client.call(tool, capabilities=FORMS, extra=unanswered)
    some = input_responses(request, elicitation=ACCEPTED, roots={"roots": []})
    again = await client.call(tool, capabilities=FORMS, extra=some)
    (remaining,) = again.last["inputRequests"].values()
    assert remaining["method"] == "sampling/createMessage"
    message = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}
    done = await client.call(
        tool, capabilities=FORMS, extra=input_responses(again, sampling=message)
    )
    assert done.text == "Name: octocat; Greeting: hi; Roots: 0"


@every_legacy_kind
async def test_a_state_is_invalid_for_another_caller_or_call(client: CallRunner) -> None:
    tool = "test_input_required_result_elicitation"
    request = await client.call(tool, capabilities=FORMS)
    extra = input_responses(request, elicitation=ACCEPTED)
    assert owner_of(request.last["requestState"]) == client.events.producer
    for other in ({"key": "other"}, {"arguments": {"x": 1}}, {"tool": "test_elicitation"}):
        fields: dict[str, Any] = {"capabilities": FORMS, "extra": extra, **other}
        refused = await client.call(fields.pop("tool", tool), **fields)
        assert refused.error.data["upstream_code"] == -32602
    done = await client.call(tool, capabilities=FORMS, extra=extra)
    assert done.text == "Hello, octocat!"
    spent = await client.call(tool, capabilities=FORMS, extra=extra)
    assert spent.error.reason == "Invalid or expired requestState. Restart the request."


@every_legacy_kind
async def test_a_caller_without_capabilities_gets_no_request(client: CallRunner) -> None:
    answers = await client.call("test_elicitation", {"message": "m"})
    assert isinstance(answers.frames[-1], CallResult | CallError)
    assert not any(isinstance(message, InputRequired) for message in answers.frames)


@legacy_http
async def test_a_required_page_is_an_input_request_to_stateless_callers(client: CallRunner) -> None:
    request = await client.call("test_url_elicitation_required", capabilities=FORMS)
    (question,) = request.last["inputRequests"].values()
    assert question["params"]["mode"] == "url"
    old = await client.call(
        "test_url_elicitation_required", capabilities=FORMS, family=ProtocolFamily.LEGACY
    )
    assert old.error.data["upstream_code"] == -32042


@every_kind
async def test_a_cancelled_call_ends_and_is_cancelled_at_its_server(
    client: CallRunner, fixture_requests: Any
) -> None:
    running = asyncio.create_task(client.call("test_sleep", {"seconds": 60}))
    await until(lambda: fixture_requests()["tools"].get("test_sleep"), "the call at the server")
    client.runner.cancel("c1")
    answers = await running
    assert isinstance(answers.error, CallCancelledError)
    assert isinstance(client.outcome, CallFailed)
    assert (client.outcome.code, client.outcome.sent) == ("cancelled", True)
    await until(
        lambda: fixture_requests()["cancelled"].get("test_sleep"), "the cancellation at the server"
    )


@every_legacy_kind
async def test_a_suspended_call_is_cancelled_at_its_server_when_closed(
    client: CallRunner, fixture_requests: Any
) -> None:
    await client.call("test_elicitation", {"message": "m"}, capabilities=FORMS)
    assert len(client.runner.round_trips.suspended_calls) == 1
    client.runner.close()
    await until(lambda: fixture_requests()["cancelled"].get("test_elicitation"), "the cancellation")


@every_kind
async def test_a_subscribed_resource_is_announced(client: CallRunner) -> None:
    subscribed = await client.call(WATCHED, {"uri": WATCHED}, method="resources/subscribe")
    assert subscribed.last in ({}, {"resultType": "complete"})

    async def touched() -> bool:
        await client.call("test_touch_watched_resource")
        return bool(client.notifications)

    give_up = time() + PATIENCE
    while not await touched():  # the notification stream may take a moment to open
        assert time() < give_up
    method, params = client.notifications[0]
    assert (method, params["uri"]) == ("notifications/resources/updated", WATCHED)


@every_kind
async def test_a_changed_list_of_any_kind_is_announced(client: CallRunner) -> None:
    for trigger in ("tool", "prompt", "resource"):
        client.changed.clear()
        give_up = time() + PATIENCE
        while not client.changed.is_set():
            assert time() < give_up
            await client.call(f"test_trigger_{trigger}_change")


@modern_http
async def test_arguments_are_repeated_in_headers(client: CallRunner, fixture_requests: Any) -> None:
    answers = await client.call("test_x_mcp_header", {"region": "us west"})
    assert answers.text == "region: us west"
    request = [each for each in fixture_requests()["last"] if each["method"] == "tools/call"][-1]
    assert request["headers"]["mcp-param-region"] == "us west"


@modern_http
async def test_outdated_headers_are_built_again_once(
    client: CallRunner, fixture_requests: Any
) -> None:
    client.upstream.learn(())
    answers = await client.call("test_x_mcp_header", {"region": "eu"})
    assert answers.text == "region: eu"
    assert fixture_requests()["tools"]["test_x_mcp_header"] == 1


@legacy_http
async def test_an_answer_whose_stream_breaks_off_is_resumed(client: CallRunner) -> None:
    answers = await client.call("test_reconnection")
    assert "came back" in answers.text
    assert [message for message in answers.frames if isinstance(message, StreamPaused)] == [
        StreamPaused(300)
    ]


@every_kind
async def test_a_task_is_created_queried_and_ended(client: CallRunner) -> None:
    arguments = {"seconds": 0.05, "label": "w"}
    modern = client.described.family == "modern"
    tasks = '{"extensions":{"io.modelcontextprotocol/tasks":{}}}'
    more: dict[str, Any] = {"capabilities": tasks} if modern else {"extra": '{"task":{}}'}
    started = await client.call("slow_compute", arguments, **more)
    body = json.loads(started.frames[-1].encode()[1:])
    about = {"taskId": (body if modern else body["task"])["taskId"]}
    assert client.outcome.result_type == "task"
    more.pop("extra", None)
    give_up = time() + PATIENCE
    while True:
        found = (await client.call("slow_compute", about, method="tasks/get", **more)).last
        if found["status"] == "completed":
            return
        assert time() < give_up


@every_kind
async def test_a_timeout_for_a_tasks_result_does_not_count_against_the_server(
    client: CallRunner,
) -> None:
    started = await client.call(
        "slow_compute", {"seconds": 60}, family=ProtocolFamily.LEGACY, extra='{"task":{}}'
    )
    about = json.loads(started.frames[-1].encode()[1:])["task"]
    for _ in range(6):  # more than open a breaker
        request = {
            "method": "tasks/result",
            "family": ProtocolFamily.LEGACY,
            "deadline": time() + 0.2,
        }
        error = (await client.call("slow_compute", {"taskId": about["taskId"]}, **request)).error
        assert "request its result again" in error.reason
    assert (await client.call("greet", {"name": "x"})).text == "Hello, x!"


@modern_kinds
async def test_a_tool_that_requires_a_task_answers_callers_with_a_session(
    client: CallRunner,
) -> None:
    done = await client.call("failing_job", family=ProtocolFamily.LEGACY)
    assert "as it always does" in done.text
    assert client.outcome.is_error
    broken = (await client.call("protocol_error_job", family=ProtocolFamily.LEGACY)).error
    assert (broken.reason, broken.data["upstream_code"]) == ("The job broke.", -32603)


@modern_kinds
async def test_a_tool_that_requires_a_task_rejects_stateless_callers_without_tasks(
    client: CallRunner,
) -> None:
    refused = (await client.call("failing_job")).error
    assert refused.data["upstream_code"] == -32021


@legacy_http
async def test_callers_with_the_same_capabilities_share_a_session(
    client: CallRunner, fixture_requests: Any
) -> None:
    for _ in range(3):
        await client.call("greet", {"name": "x"})
        await client.call("greet", {"name": "x"}, capabilities='{"roots":{}}')
    # The main one, and one for each set of capabilities.
    assert fixture_requests()["methods"]["initialize"] == 3
    declared = [
        t["params"]["capabilities"]
        for t in fixture_requests()["last"]
        if t["method"] == "initialize"
    ]
    assert {} in declared
    assert {"roots": {}} in declared


@pytest.mark.parametrize(
    ("client", "in_head"),
    [(kind, kind in ("http modern", "http legacy")) for kind in KINDS],
    indirect=["client"],
)
async def test_a_server_receives_the_trace_in_every_place_of_its_transport(
    client: CallRunner,
    fixture_requests: Any,
    in_head: bool,  # noqa: FBT001
) -> None:
    trace = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
    await client.call("greet", {"name": "x"}, traceparent=trace, tracestate="a=b", baggage="c=d")
    fields = {"traceparent": trace, "tracestate": "a=b", "baggage": "c=d"}
    (call,) = [each for each in fixture_requests()["last"] if each["method"] == "tools/call"]
    assert {name: call["params"]["_meta"][name] for name in fields} == fields
    in_heads = {name: value for name, value in call["headers"].items() if name in fields}
    assert in_heads == (fields if in_head else {})
