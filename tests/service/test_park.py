"""Two executors, one server that asks back: a round may reach any of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import pytest

from conformance.upstream import FixtureServer
from harness.waits import until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import (
    CallAdmitted,
    CallCancelled,
    CallError,
    CallRequested,
    FinalReply,
    InputRequired,
    ProtocolFamily,
)
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import CallCancelledError, ExecutorDownError, UpstreamRefusedError
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_executor.main import build

TOOL = "test_input_required_result_elicitation"
CONFIRM = "confirm_delete"
TASKS = '"extensions":{"io.modelcontextprotocol/tasks":{}}'
FORMS = '{"elicitation":{"form":{}},' + TASKS + "}"


class Agent:
    """Asks over the bus, through a policy that admits everything."""

    def __init__(self, settings: Settings, server: FixtureServer) -> None:
        self.server = server
        self.ingress, self.policy = Service("ingress", settings), Service("policy", settings)

        @self.policy.serve_calls(CallRequested)
        async def admit(call: CallRequested, reply: ReplyChannel) -> None:
            given = {name: getattr(call, name) for name in CallRequested.model_fields}
            allowed = CallAdmitted(**given, customer="default", key="k")
            nobody = CallError(ExecutorDownError("No executor is there."))
            await self.policy.calls.hand_over(
                allowed, reply, lambda: self.policy.spawn(reply.send(nobody))
            )

    def call(self, tool: str, arguments: bytes = b"{}", extra: str = "") -> CallRequested:
        """A call to be asked."""
        call_id = self.ingress.calls.new_call_id()
        return CallRequested(
            call_id=call_id,
            reply_to=self.ingress.calls.address(call_id),
            server="asks",
            tool=tool,
            key_digest="key_digest",
            family=ProtocolFamily.MODERN,
            deadline=time() + 60,
            traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
            capabilities=FORMS,
            extra=extra,
            arguments=arguments,
        )

    def about(self, method: str, task: str, **more: Any) -> CallRequested:
        """What is asked of a task."""
        arguments = json.dumps({"taskId": task, **more}).encode()
        return self.call(CONFIRM, arguments).model_copy(update={"method": method})

    async def request(self, tool: str, extra: str = "") -> FinalReply:
        """One round."""
        return await self.ingress.calls.request(self.call(tool, extra=extra))


@pytest.fixture
async def agent(
    settings: Settings, operator: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Agent]:
    """An agent in front of two executors that both know the server."""
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)
    server = FixtureServer(tmp_path / "fixture", "--family", "legacy")
    server.start()
    # Shared, so that either executor serves every call of the one agent.
    declared = Configuration(servers={"asks": Server(url=server.url, sessions="shared")})
    config = await operator.bucket(CONFIG)
    await config.put("configuration", declared.model_dump_json().encode())
    made = Agent(settings, server)
    executors = [build(LocalTransport()) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for service in (*executors, made.policy, made.ingress):
            await stack.enter_async_context(service.running())
        await until_async(lambda: _two_owners(made), "two executors that both serve")
        yield made
    server.kill()


def answered(asked: FinalReply) -> str:
    """What the caller brings back."""
    assert isinstance(asked, InputRequired)
    body = json.loads(asked.body)
    answer = {"action": "accept", "content": {"name": "octocat"}}
    found = dict.fromkeys(body["inputRequests"], answer)
    return json.dumps({"inputResponses": found, "requestState": body["requestState"]})


async def test_the_rounds_of_a_call_succeed_whichever_replica_they_reach(agent: Agent) -> None:
    async def both_rounds() -> tuple[str, str]:
        request = await agent.request(TOOL)
        extra = answered(request)
        done = json.loads((await agent.request(TOOL, extra)).body)
        return json.loads(extra)["requestState"].split(".")[1], done["content"][0]["text"]

    async with asyncio.timeout(60):
        result = await asyncio.gather(*(both_rounds() for _ in range(24)))
    assert {text for _, text in result} == {"Hello, octocat!"}
    assert len({owner for owner, _ in result}) == 2


async def _two_owners(agent: Agent) -> bool:
    """Whether either executor takes calls: which one does is for the bus to say."""
    request = await asyncio.gather(*(agent.request(TOOL) for _ in range(8)), return_exceptions=True)
    body = [json.loads(found.body) for found in request if isinstance(found, InputRequired)]
    return len({state["requestState"].split(".")[1] for state in body}) == 2


async def test_the_answers_to_a_task_reach_the_replica_that_was_asked(agent: Agent) -> None:
    async def whole() -> str:
        started = json.loads((await agent.request(CONFIRM)).body)
        look = partial(_looked_at, agent, started["taskId"])
        request = await until_async(lambda: look("inputRequests"), "the question", 60)
        yes = {"action": "accept", "content": {"confirm": True}}
        answers = dict.fromkeys(request, yes)
        result = agent.about("tasks/update", started["taskId"], inputResponses=answers)
        await agent.ingress.calls.request(result)
        done = await until_async(lambda: look("result"), "the end", 60)
        return f"{done['content'][0]['text']}, {next(iter(request)).split('.')[1]}"

    result = await asyncio.gather(*(whole() for _ in range(24)))
    assert all(text.startswith("the file is deleted") for text in result)
    assert len({text.rpartition(" ")[2] for text in result}) == 2, "either replica asked"


async def test_answers_to_a_replica_that_is_gone_are_asked_for_anew(agent: Agent) -> None:
    task = json.loads((await agent.request(CONFIRM)).body)["taskId"]
    lost = {"task.0123456789abcdef.x.q1": {"action": "accept"}}
    update = agent.about("tasks/update", task, inputResponses=lost)
    assert json.loads((await agent.ingress.calls.request(update)).body)["resultType"] == "complete"
    request = await until_async(lambda: _looked_at(agent, task, "inputRequests"), "the question")
    assert len(request) == 1


async def _looked_at(agent: Agent, task: str, member: str) -> Any:
    """A member of a task, once it is there."""
    final = await agent.ingress.calls.request(agent.about("tasks/get", task))
    return json.loads(final.body).get(member)


async def test_a_state_whose_owner_is_gone_is_refused_at_once(agent: Agent) -> None:
    reply: dict[str, Any] = json.loads(answered(await agent.request(TOOL)))
    reply["requestState"] = "suspended.0123456789abcdef." + reply["requestState"].split(".")[2]
    with pytest.raises(UpstreamRefusedError) as caught:
        await agent.request(TOOL, json.dumps(reply))
    assert caught.value.data["upstream_code"] == -32602


async def test_a_call_taken_back_ends_wherever_it_runs(agent: Agent) -> None:
    call = agent.call("test_sleep", b'{"seconds":60}')
    running = asyncio.create_task(agent.ingress.calls.request(call))
    taken_back = CallCancelled(call_id=call.call_id)

    async def ended() -> bool:
        await agent.ingress.bus.publish(taken_back.subject, taken_back.encode())
        return running.done()

    await until_async(ended, "the end of the call")
    with pytest.raises(CallCancelledError):
        await running


async def test_a_parked_call_taken_back_is_cancelled_at_its_server_and_gone(agent: Agent) -> None:
    call = agent.call(TOOL)
    request = await agent.ingress.calls.request(call)
    agent.server.forget()  # what the look for two owners left behind is not yet given up
    taken_back = CallCancelled(call_id=call.call_id)
    await agent.ingress.bus.publish(taken_back.subject, taken_back.encode())

    async def told() -> bool:
        return bool(agent.server.seen()["cancelled"].get(TOOL))

    await until_async(told, "the cancellation at the server")
    with pytest.raises(UpstreamRefusedError) as caught:
        await agent.request(TOOL, answered(request))
    assert caught.value.data["upstream_code"] == -32602


async def test_a_call_that_went_on_is_not_taken_back_by_its_first_rounds_name(
    agent: Agent,
) -> None:
    tool = "test_input_required_result_multi_round"
    first = agent.call(tool)
    request = await agent.ingress.calls.request(first)
    second = agent.call(tool, extra=answered(request))
    request = await agent.ingress.calls.request(second)
    stale = CallCancelled(call_id=first.call_id)
    await agent.ingress.bus.publish(stale.subject, stale.encode())
    done = json.loads((await agent.request(tool, answered(request))).body)
    assert done["content"][0]["text"].startswith("Multi-round complete")
