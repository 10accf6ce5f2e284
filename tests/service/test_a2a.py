"""A2A agents as servers, against agents of the official SDK in processes of their own."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from harness.a2a.agent import PNG, Agent
from harness.services.call_runner import AT_LOOPBACK, CallRunner, ReplyRecorder, admitted
from harness.waits import until_async
from toolbus_common.config import Operations, Server
from toolbus_common.contracts.replies import Progress
from toolbus_common.errors import InvalidArgumentsError, UpstreamDeadError
from toolbus_executor.upstreams.a2a import A2aUpstream
from toolbus_executor.upstreams.a2a.handles import Handles

TOKEN = "Bearer a2a-token-that-is-secret"
REPORT = "write-report"
SECRET = b"k" * 32
OTHER = {"key": "other", "principal_id": "p2"}


@pytest.fixture(scope="module", params=["1.0", "0.3", "1.0 polled", "0.3 polled"])
def agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    version, _, polled = request.param.partition(" ")
    result = Agent(tmp_path_factory.mktemp("a2a"), version, streaming=not polled)
    with result.running() as agent:
        yield agent


async def opened(url: str, name: str = "s", **declared: Any) -> CallRunner:
    client = CallRunner()
    server, handles = Server(a2a=url, **declared), Handles(lambda: [SECRET], name)
    headers = {"Authorization": TOKEN}
    await client.open(A2aUpstream(server, headers, client.news, AT_LOOPBACK, handles))
    return client


@pytest.fixture
async def client(agent: Agent) -> AsyncIterator[CallRunner]:
    client = await opened(agent.origin)
    try:
        yield client
    finally:
        await client.close()


def sent(agent: Agent) -> list[dict[str, Any]]:
    names = ("SendMessage", "SendStreamingMessage", "message/send", "message/stream")
    return agent.received(*names)


async def test_each_skill_is_a_tool(agent: Agent, client: CallRunner) -> None:
    tools = {each.name: each.definition for each in client.listing.tools}
    assert set(tools) == {REPORT, "translate"}
    assert tools[REPORT]["title"] == "Reports"
    assert tools[REPORT]["description"].startswith("Writes a report.\nPerformed by the agent Ana")
    assert "- report Q3" in tools[REPORT]["description"]
    assert (client.described.family, client.described.version) == ("a2a", agent.version)


async def test_a_message_is_sent_in_the_agents_version(agent: Agent, client: CallRunner) -> None:
    result = (await client.call(REPORT, {"message": "report Q3"})).last
    texts = [each["text"] for each in result["content"]]
    assert texts == ["Report on report Q3", "the end"]
    assert result["structuredContent"]["state"] == "completed"
    last = sent(agent)[-1]
    assert last["headers"] == {"a2a-version": agent.version, "authorization": TOKEN}
    assert last["method"] == {
        ("1.0", True): "SendStreamingMessage", ("1.0", False): "SendMessage",
        ("0.3", True): "message/stream", ("0.3", False): "message/send",
    }[agent.version, agent.streaming]  # fmt: skip
    assert last["params"]["message"]["metadata"] == {"skillId": REPORT}


async def test_a_message_may_be_the_whole_answer(client: CallRunner) -> None:
    result = (await client.call(REPORT, {"message": "say hello"})).last
    assert result["content"] == [{"type": "text", "text": "You wrote: say hello"}]
    assert not result.get("isError")


async def test_data_and_files_go_both_ways(client: CallRunner) -> None:
    files = [
        {"base64": base64.b64encode(b"x").decode(), "name": "x.txt", "media_type": "text/plain"},
        {"url": "https://files.example/y"},
    ]
    given = {"message": "parts", "data": {"year": 2026}, "files": files}
    result = (await client.call("translate", given)).last
    (data,) = result["structuredContent"]["data"]
    assert data == {"kinds": ["text", "data", "raw", "url"], "skill": {"skillId": "translate"}}
    text, image, document, link = result["content"]
    assert json.loads(text["text"]) == data
    encoded = base64.b64encode(PNG).decode()
    assert image == {"type": "image", "data": encoded, "mimeType": "image/png"}
    assert document["resource"]["uri"] == "a2a:a_b.pdf"
    assert base64.b64decode(document["resource"]["blob"]) == b"%PDF"
    assert (link["type"], link["uri"]) == ("resource_link", "https://files.example/c.csv")


async def test_the_agents_words_are_progress(client: CallRunner) -> None:
    reply = await client.call(REPORT, {"message": "wait 0.5"}, progress=True)
    words = [
        json.loads(each.body)["message"] for each in reply.frames if isinstance(each, Progress)
    ]
    assert "waiting" in words
    assert reply.text == "waited"


async def test_a_failed_task_is_a_tool_error(client: CallRunner) -> None:
    result = (await client.call(REPORT, {"message": "fail"})).last
    assert result["isError"] is True
    assert result["content"][0]["text"] == "no figures"
    assert result["structuredContent"]["state"] == "failed"


async def test_a_question_is_answered_with_the_task_id(client: CallRunner) -> None:
    question = (await client.call(REPORT, {"message": "ask me"})).last
    about = question["structuredContent"]
    assert (about["state"], question["content"][0]["text"]) == ("input-required", "Which quarter?")
    assert about["task_id"] in question["content"][-1]["text"]
    answer = {"message": "Q3", "task_id": about["task_id"], "context_id": about["context_id"]}
    result = (await client.call(REPORT, answer)).last
    assert result["content"][0]["text"] == "Thanks for Q3"


def test_ids_of_every_accepted_key_are_accepted() -> None:
    accepted, call = [b"1" * 32], admitted(REPORT)
    handles = Handles(lambda: accepted, "s")
    earlier = handles.of("task_id", "t", call)
    accepted.insert(0, b"2" * 32)
    later = handles.of("task_id", "t", call)
    assert later != earlier
    assert [handles.own("task_id", each, call) for each in (earlier, later)] == ["t", "t"]
    accepted.pop()
    assert handles.own("task_id", later, call) == "t"
    with pytest.raises(InvalidArgumentsError, match="Unknown task_id"):
        handles.own("task_id", earlier, call)


async def test_a_task_belongs_to_the_principal_that_began_it(
    agent: Agent, client: CallRunner
) -> None:
    about = (await client.call(REPORT, {"message": "ask me"})).last["structuredContent"]
    before = len(sent(agent))
    own = about["task_id"].rpartition(".")[0]
    tried: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"task_id": about["task_id"]}, OTHER),
        ({"message": "Q3", "task_id": about["task_id"]}, OTHER),
        ({"message": "Q3", "context_id": about["context_id"]}, OTHER),
        ({"task_id": own}, {}),
        ({"task_id": about["context_id"]}, {}),
        ({"task_id": about["task_id"] + "é"}, {}),
    ]
    for arguments, caller in tried:
        error = (await client.call(REPORT, arguments, **caller)).error
        assert isinstance(error, InvalidArgumentsError)
        assert "belongs to another principal" in error.reason
    assert len(sent(agent)) == before
    foreign = await opened(agent.origin, "another")
    error = (await foreign.call(REPORT, {"task_id": about["task_id"]})).error
    assert isinstance(error, InvalidArgumentsError)
    await foreign.close()


async def test_a_task_that_outlasts_the_call_can_be_awaited_by_another(agent: Agent) -> None:
    client = await opened(agent.origin)
    short = CallRunner(timeout=0.6, max_total_timeout=0.6)
    handles = Handles(lambda: [SECRET], "s")
    server = Server(a2a=agent.origin)
    await short.open(A2aUpstream(server, {}, short.news, AT_LOOPBACK, handles))
    begun = (await short.call(REPORT, {"message": "wait 2"})).last
    about = begun["structuredContent"]
    assert (about["state"], begun.get("isError")) == ("working", None)
    result = (await client.call(REPORT, {"task_id": about["task_id"]})).last
    assert result["content"][0]["text"] == "waited"
    await short.close()
    await client.close()


async def test_a_cancelled_call_cancels_its_task(agent: Agent, client: CallRunner) -> None:
    reply = ReplyRecorder()
    call = admitted(REPORT, {"message": "wait"}, progress=True)
    running = asyncio.create_task(client.run(call, reply))

    async def waits() -> bool:
        return any(isinstance(each, Progress) for each in reply.frames)

    async def cancelled() -> bool:
        return bool(agent.received("CancelTask", "tasks/cancel"))

    await until_async(waits, "the agent's progress")
    assert client.runner.cancel("c1")
    await running
    await until_async(cancelled, "the cancellation of the task")


async def test_an_error_of_the_agent_is_a_tool_error(agent: Agent, client: CallRunner) -> None:
    unknown = Handles(lambda: [SECRET], "s").of("task_id", "no-such-task", admitted(REPORT))
    result = (await client.call(REPORT, {"task_id": unknown})).last
    assert result["isError"] is True
    assert "error -32001" in result["content"][0]["text"]
    assert agent.origin not in result["content"][0]["text"]


async def test_skills_are_selected_by_id_and_tag(agent: Agent) -> None:
    only = await opened(agent.origin, operations=Operations(include=("tag:language",)))
    assert [each.name for each in only.listing.tools] == ["translate"]
    await only.close()


async def test_an_agent_that_is_gone_is_dead(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Agent(tmp_path_factory.mktemp("gone"), "1.0").running() as agent:
        client = await opened(agent.origin)
    error = (await client.call(REPORT, {"message": "report"})).error
    assert isinstance(error, UpstreamDeadError)
    with pytest.raises(UpstreamDeadError):
        await client.upstream.probe()  # type: ignore[attr-defined]
    await client.close()
