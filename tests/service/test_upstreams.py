"""The executor's upstreams against the fixture server: every transport, in both families."""

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
    """The fixture server over HTTP, once for each family and once as of 2024."""
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
async def bench(
    request: pytest.FixtureRequest, servers: dict[str, FixtureServer], tmp_path: Path
) -> AsyncIterator[CallRunner]:
    """A runner over the fixture server of the kind the test names."""
    made = CallRunner()
    await made.open(connected(request.param, servers, made.news, tmp_path / "seen"))
    yield made
    await made.close()


@pytest.fixture
def seen(request: pytest.FixtureRequest, servers: dict[str, FixtureServer], tmp_path: Path) -> Any:
    """What reached the fixture server, asked anew each time."""
    kind = request.node.callspec.params["bench"]

    def told() -> dict[str, Any]:
        if kind.startswith("stdio"):
            text = (tmp_path / "seen").read_text()  # which may be in the middle of a writing
            found: dict[str, Any] = {"tools": {}, "cancelled": {}}
            with suppress(ValueError):
                found = json.loads(text)
            return found
        return servers[kind].seen()

    return told


async def test_an_old_server_may_be_declared_as_one(servers: dict[str, FixtureServer]) -> None:
    made = CallRunner()
    url = servers["sse"].url.replace("/mcp", "/sse")
    await made.open(HttpUpstream(url, {}, made.news, AT_LOOPBACK, protocol="sse"))
    assert (await made.call("test_echo", {"text": "hello"})).text == "hello"
    assert servers["sse"].seen()["methods"].get("server/discover") is None
    await made.close()


every_kind = pytest.mark.parametrize("bench", KINDS, indirect=True)
modern_kinds = pytest.mark.parametrize("bench", KINDS[:2], indirect=True)
every_legacy_kind = pytest.mark.parametrize("bench", LEGACY_KINDS, indirect=True)
modern_http = pytest.mark.parametrize("bench", ["http modern"], indirect=True)
legacy_http = pytest.mark.parametrize("bench", ["http legacy"], indirect=True)


ACCEPTED = {"action": "accept", "content": {"name": "octocat", "step1": "x", "color": "red"}}


@every_kind
async def test_everything_a_server_offers_is_listed(bench: CallRunner) -> None:
    names = {offered.name for offered in bench.listing.tools}
    assert {"test_simple_text", "test_x_mcp_header"} <= names
    assert "test_simple_prompt" in {offered.name for offered in bench.listing.prompts}
    assert WATCHED in {offered.name for offered in bench.listing.resources}
    assert [offered.name for offered in bench.listing.templates] == ["test://template/{id}/data"]
    assert bench.listing.capabilities["completions"] == {}
    assert bench.listing.dropped == {}


@every_kind
async def test_a_tool_a_prompt_a_resource_and_a_completion_are_answered(bench: CallRunner) -> None:
    assert (await bench.call("test_echo", {"text": "hello"})).text == "hello"
    prompt = await bench.call(
        "test_prompt_with_arguments", {"arg1": "a", "arg2": "b"}, method="prompts/get"
    )
    assert prompt.last["messages"]
    read = await bench.call(WATCHED, {"uri": WATCHED}, method="resources/read")
    assert read.last["contents"][0]["text"] == "Watched resource content"
    assert {"ttlMs", "cacheScope", "resultType"} <= read.last.keys()
    reference = {"type": "ref/prompt", "name": "test_prompt_with_arguments"}
    request = {"ref": reference, "argument": {"name": "arg1", "value": "par"}}
    done = await bench.call("x", request, method="completion/complete")
    assert "paris" in done.last["completion"]["values"]


@every_kind
async def test_a_servers_own_error_reaches_the_caller_as_it_is(bench: CallRunner) -> None:
    error = (await bench.call("test_protocol_error")).error
    assert isinstance(error, UpstreamRefusedError)
    assert error.reason == "Out of order"
    assert error.data == {"upstream_code": -32603, "upstream_data": {"reason": "by design"}}
    assert not bench.runner.breaker.circuit.failing


@every_kind
async def test_progress_comes_in_order_and_before_the_answer(bench: CallRunner) -> None:
    answers = await bench.call("test_tool_with_progress", progress=True)
    steps = [json.loads(f.body)["progress"] for f in answers.frames if isinstance(f, Progress)]
    assert steps == [0, 50, 100]
    assert isinstance(answers.frames[-1], CallResult)


@every_kind
async def test_what_a_server_logs_is_told_to_who_wants_it_and_to_nobody_else(
    bench: CallRunner,
) -> None:
    result = await bench.call("test_tool_with_logging", log_level="info")
    logged = [f for f in result.frames if isinstance(f, Notification)]
    assert [f.method for f in logged] == ["notifications/message"] * 3
    assert not any(
        isinstance(f, Notification)
        for f in (await bench.call("test_tool_with_logging", log_level="error")).frames
    )
    assert len((await bench.call("test_tool_with_logging")).frames) == 1


@every_kind
async def test_a_form_is_asked_and_the_answer_ends_the_call(bench: CallRunner) -> None:
    tool = "test_input_required_result_request_state"
    request = await bench.call(tool, capabilities=FORMS)
    assert isinstance(request.frames[-1], InputRequired)
    assert isinstance(bench.outcome, CallCompleted)
    assert (bench.outcome.result_type, bench.outcome.charge) == ("input_required", 0)
    answer = {"action": "accept", "content": {"ok": True}}
    extra = input_responses(request, elicitation=answer)
    done = await bench.call(tool, capabilities=FORMS, extra=extra)
    assert done.text.startswith("state-ok")
    assert (bench.outcome.result_type, bench.outcome.charge) == ("complete", 5)


@every_legacy_kind
async def test_several_questions_come_in_one_round_and_missing_answers_are_asked_again(
    bench: CallRunner,
) -> None:
    tool = "test_input_required_result_multiple_inputs"
    request = await bench.call(tool, capabilities=FORMS)
    assert len(request.last["inputRequests"]) == 3
    some = input_responses(request, elicitation=ACCEPTED, roots={"roots": []})
    again = await bench.call(tool, capabilities=FORMS, extra=some)
    (left,) = again.last["inputRequests"].values()
    assert left["method"] == "sampling/createMessage"
    message = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}
    done = await bench.call(
        tool, capabilities=FORMS, extra=input_responses(again, sampling=message)
    )
    assert done.text == "Name: octocat; Greeting: hi; Roots: 0"


@every_legacy_kind
async def test_a_state_opens_nothing_for_another_caller_or_call(bench: CallRunner) -> None:
    tool = "test_input_required_result_elicitation"
    request = await bench.call(tool, capabilities=FORMS)
    extra = input_responses(request, elicitation=ACCEPTED)
    assert owner_of(request.last["requestState"]) == bench.events.producer
    for other in ({"key": "other"}, {"arguments": {"x": 1}}, {"tool": "test_elicitation"}):
        fields: dict[str, Any] = {"capabilities": FORMS, "extra": extra, **other}
        refused = await bench.call(fields.pop("tool", tool), **fields)
        assert refused.error.data["upstream_code"] == -32602
    done = await bench.call(tool, capabilities=FORMS, extra=extra)
    assert done.text == "Hello, octocat!"
    spent = await bench.call(tool, capabilities=FORMS, extra=extra)
    assert spent.error.reason == "Invalid or expired requestState"


@every_legacy_kind
async def test_a_caller_that_declared_nothing_is_asked_nothing(bench: CallRunner) -> None:
    answers = await bench.call("test_elicitation", {"message": "m"})
    assert isinstance(answers.frames[-1], CallResult | CallError)
    assert not any(isinstance(frame, InputRequired) for frame in answers.frames)


@legacy_http
async def test_a_page_that_must_be_opened_is_a_question_to_modern_callers(
    bench: CallRunner,
) -> None:
    request = await bench.call("test_url_elicitation_required", capabilities=FORMS)
    (question,) = request.last["inputRequests"].values()
    assert question["params"]["mode"] == "url"
    old = await bench.call(
        "test_url_elicitation_required", capabilities=FORMS, family=ProtocolFamily.LEGACY
    )
    assert old.error.data["upstream_code"] == -32042


@every_kind
async def test_a_cancelled_call_ends_and_its_server_is_told(bench: CallRunner, seen: Any) -> None:
    running = asyncio.create_task(bench.call("test_sleep", {"seconds": 60}))
    await until(lambda: seen()["tools"].get("test_sleep"), "the call at the server")
    bench.runner.cancel("c1")
    answers = await running
    assert isinstance(answers.error, CallCancelledError)
    assert isinstance(bench.outcome, CallFailed)
    assert (bench.outcome.code, bench.outcome.sent) == ("cancelled", True)
    await until(lambda: seen()["cancelled"].get("test_sleep"), "the cancellation at the server")


@every_legacy_kind
async def test_a_parked_call_given_up_is_cancelled_at_its_server(
    bench: CallRunner, seen: Any
) -> None:
    await bench.call("test_elicitation", {"message": "m"}, capabilities=FORMS)
    assert len(bench.runner.round_trips.suspended_calls) == 1
    bench.runner.close()
    await until(lambda: seen()["cancelled"].get("test_elicitation"), "the cancellation")


@every_kind
async def test_a_watched_resource_is_told_of_until_it_is_not_watched(bench: CallRunner) -> None:
    subscribed = await bench.call(WATCHED, {"uri": WATCHED}, method="resources/subscribe")
    assert subscribed.last in ({}, {"resultType": "complete"})

    async def touched() -> bool:
        await bench.call("test_touch_watched_resource")
        return bool(bench.notifications)

    give_up = time() + PATIENCE
    while not await touched():  # a stream of news may take a moment to begin
        assert time() < give_up
    method, params = bench.notifications[0]
    assert (method, params["uri"]) == ("notifications/resources/updated", WATCHED)


@every_kind
async def test_a_changed_list_of_any_kind_is_heard(bench: CallRunner) -> None:
    for trigger in ("tool", "prompt", "resource"):
        bench.changed.clear()
        give_up = time() + PATIENCE
        while not bench.changed.is_set():
            assert time() < give_up
            await bench.call(f"test_trigger_{trigger}_change")


@modern_http
async def test_arguments_are_repeated_in_headers(bench: CallRunner, seen: Any) -> None:
    answers = await bench.call("test_x_mcp_header", {"region": "us west"})
    assert answers.text == "region: us west"
    request = [each for each in seen()["last"] if each["method"] == "tools/call"][-1]
    assert request["headers"]["mcp-param-region"] == "us west"


@modern_http
async def test_headers_that_no_longer_fit_are_made_anew_once(bench: CallRunner, seen: Any) -> None:
    bench.upstream.learn(())
    answers = await bench.call("test_x_mcp_header", {"region": "eu"})
    assert answers.text == "region: eu"
    assert seen()["tools"]["test_x_mcp_header"] == 1


@legacy_http
async def test_an_answer_whose_stream_breaks_off_is_gone_on_with(bench: CallRunner) -> None:
    answers = await bench.call("test_reconnection")
    assert "came back" in answers.text
    assert [frame for frame in answers.frames if isinstance(frame, StreamPaused)] == [
        StreamPaused(300)
    ]


@every_kind
async def test_a_task_is_begun_asked_after_and_ended(bench: CallRunner) -> None:
    arguments = {"seconds": 0.05, "label": "w"}
    modern = bench.described.family == "modern"
    tasks = '{"extensions":{"io.modelcontextprotocol/tasks":{}}}'
    more: dict[str, Any] = {"capabilities": tasks} if modern else {"extra": '{"task":{}}'}
    started = await bench.call("slow_compute", arguments, **more)
    body = json.loads(started.frames[-1].encode()[1:])
    about = {"taskId": (body if modern else body["task"])["taskId"]}
    assert bench.outcome.result_type == "task"
    more.pop("extra", None)
    give_up = time() + PATIENCE
    while True:
        found = (await bench.call("slow_compute", about, method="tasks/get", **more)).last
        if found["status"] == "completed":
            return
        assert time() < give_up


@every_kind
async def test_waiting_in_vain_for_a_tasks_result_says_nothing_against_the_server(
    bench: CallRunner,
) -> None:
    started = await bench.call(
        "slow_compute", {"seconds": 60}, family=ProtocolFamily.LEGACY, extra='{"task":{}}'
    )
    about = json.loads(started.frames[-1].encode()[1:])["task"]
    for _ in range(6):  # more than open a breaker
        request = {
            "method": "tasks/result",
            "family": ProtocolFamily.LEGACY,
            "deadline": time() + 0.2,
        }
        error = (await bench.call("slow_compute", {"taskId": about["taskId"]}, **request)).error
        assert "request its result again" in error.reason
    assert (await bench.call("greet", {"name": "x"})).text == "Hello, x!"


@modern_kinds
async def test_a_tool_that_insists_on_a_task_answers_callers_of_sessions(bench: CallRunner) -> None:
    done = await bench.call("failing_job", family=ProtocolFamily.LEGACY)
    assert "as it always does" in done.text
    assert bench.outcome.is_error
    broken = (await bench.call("protocol_error_job", family=ProtocolFamily.LEGACY)).error
    assert (broken.reason, broken.data["upstream_code"]) == ("The job broke.", -32603)


@modern_kinds
async def test_a_tool_that_insists_on_a_task_refuses_stateless_callers(bench: CallRunner) -> None:
    refused = (await bench.call("failing_job")).error
    assert refused.data["upstream_code"] == -32021


@legacy_http
async def test_sessions_of_callers_that_can_do_the_same_are_one(
    bench: CallRunner, seen: Any
) -> None:
    for _ in range(3):
        await bench.call("greet", {"name": "x"})
        await bench.call("greet", {"name": "x"}, capabilities='{"roots":{}}')
    assert seen()["methods"]["initialize"] == 3  # the main one, and one for each class
    declared = [t["params"]["capabilities"] for t in seen()["last"] if t["method"] == "initialize"]
    assert {} in declared
    assert {"roots": {}} in declared


@pytest.mark.parametrize(
    ("bench", "in_head"),
    [(kind, kind in ("http modern", "http legacy")) for kind in KINDS],
    indirect=["bench"],
)
async def test_a_server_is_told_of_the_calls_trace_by_every_way_there_is(
    bench: CallRunner,
    seen: Any,
    in_head: bool,  # noqa: FBT001
) -> None:
    trace = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
    await bench.call("greet", {"name": "x"}, traceparent=trace, tracestate="a=b", baggage="c=d")
    fields = {"traceparent": trace, "tracestate": "a=b", "baggage": "c=d"}
    (call,) = [each for each in seen()["last"] if each["method"] == "tools/call"]
    assert {name: call["params"]["_meta"][name] for name in fields} == fields
    in_heads = {name: value for name, value in call["headers"].items() if name in fields}
    assert in_heads == (fields if in_head else {})
