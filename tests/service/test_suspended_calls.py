"""Suspended calls and tasks over two executors: a round may reach either of them."""

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
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import CallCancelledError, ExecutorDownError, UpstreamRefusedError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_executor.main import build

TOOL = "test_input_required_result_elicitation"
CONFIRM = "confirm_delete"
TASKS = '"extensions":{"io.modelcontextprotocol/tasks":{}}'
FORMS = '{"elicitation":{"form":{}},' + TASKS + "}"


class Agent:
    """A client on the bus, with a policy that admits every call."""

    def __init__(self, settings: Settings, server: FixtureServer) -> None:
        self.server = server
        self.ingress, self.policy = Service("ingress", settings), Service("policy", settings)

        @self.policy.serve_calls(CallRequested)
        async def admit(call: CallRequested, context: CallContext) -> Reply | None:
            given = {name: getattr(call, name) for name in CallRequested.model_fields}
            allowed = CallAdmitted(**given, customer="default", key="k")
            no_executor = CallError(ExecutorDownError("No executor is there."))
            return await self.policy.calls.hand_over(
                allowed, context, lambda: context.send(no_executor)
            )

    def call(self, tool: str, arguments: bytes = b"{}", extra: str = "") -> CallRequested:
        """Return a call request."""
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
        """Return a request about a task."""
        arguments = json.dumps({"taskId": task, **more}).encode()
        return self.call(CONFIRM, arguments).model_copy(update={"method": method})

    async def request(self, tool: str, extra: str = "") -> FinalReply:
        """Send one round of a call."""
        return await self.ingress.calls.request(self.call(tool, extra=extra))


@pytest.fixture
async def agent(settings: Settings, operator: Bus, tmp_path: Path) -> AsyncIterator[Agent]:
    """Run a client in front of two executors with the same server."""
    server = FixtureServer(tmp_path / "fixture", "--family", "legacy")
    server.start()
    # Shared, so that either executor serves every call of the one agent.
    declared = Configuration(servers={"asks": Server(url=server.url, sessions="shared")})
    config = await operator.bucket(CONFIG)
    await config.put("configuration", declared.model_dump_json().encode())
    agent = Agent(settings, server)
    executors = [build(ProcessContext()) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for service in (*executors, agent.policy, agent.ingress):
            await stack.enter_async_context(service.running())
        await until_async(lambda: _two_owners(agent), "two executors that both serve")
        yield agent
    server.kill()


def answered(reply: FinalReply) -> str:
    """Return the caller's answers to an input request."""
    assert isinstance(reply, InputRequired)
    body = json.loads(reply.body)
    answer = {"action": "accept", "content": {"name": "octocat"}}
    found = dict.fromkeys(body["inputRequests"], answer)
    return json.dumps({"inputResponses": found, "requestState": body["requestState"]})


async def test_the_rounds_of_a_call_succeed_at_every_replica(agent: Agent) -> None:
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
    """Return whether both executors take calls; the bus selects the executor of each call."""
    request = await asyncio.gather(*(agent.request(TOOL) for _ in range(8)), return_exceptions=True)
    body = [json.loads(found.body) for found in request if isinstance(found, InputRequired)]
    return len({state["requestState"].split(".")[1] for state in body}) == 2


async def test_the_answers_to_a_task_reach_the_replica_that_requested_them(agent: Agent) -> None:
    async def whole() -> str:
        started = json.loads((await agent.request(CONFIRM)).body)
        look = partial(_task_member, agent, started["taskId"])
        request = await until_async(lambda: look("inputRequests"), "the question", 60)
        yes = {"action": "accept", "content": {"confirm": True}}
        answers = dict.fromkeys(request, yes)
        result = agent.about("tasks/update", started["taskId"], inputResponses=answers)
        await agent.ingress.calls.request(result)
        done = await until_async(lambda: look("result"), "the end", 60)
        return f"{done['content'][0]['text']}, {next(iter(request)).split('.')[1]}"

    result = await asyncio.gather(*(whole() for _ in range(24)))
    assert all(text.startswith("the file is deleted") for text in result)
    assert len({text.rpartition(" ")[2] for text in result}) == 2, "each replica sent requests"


async def test_answers_to_a_lost_replica_are_requested_again(agent: Agent) -> None:
    task = json.loads((await agent.request(CONFIRM)).body)["taskId"]
    lost = {"task.0123456789abcdef.x.q1": {"action": "accept"}}
    update = agent.about("tasks/update", task, inputResponses=lost)
    assert json.loads((await agent.ingress.calls.request(update)).body)["resultType"] == "complete"
    request = await until_async(lambda: _task_member(agent, task, "inputRequests"), "the question")
    assert len(request) == 1


async def _task_member(agent: Agent, task: str, member: str) -> Any:
    """Return a member of a task, or None."""
    final = await agent.ingress.calls.request(agent.about("tasks/get", task))
    return json.loads(final.body).get(member)


async def test_a_state_of_a_lost_replica_is_rejected_at_once(agent: Agent) -> None:
    reply: dict[str, Any] = json.loads(answered(await agent.request(TOOL)))
    reply["requestState"] = "suspended.0123456789abcdef." + reply["requestState"].split(".")[2]
    with pytest.raises(UpstreamRefusedError) as caught:
        await agent.request(TOOL, json.dumps(reply))
    assert caught.value.data["upstream_code"] == -32602


async def test_a_cancelled_call_ends_at_every_replica(agent: Agent) -> None:
    call = agent.call("test_sleep", b'{"seconds":60}')
    running = asyncio.create_task(agent.ingress.calls.request(call))
    cancelled = CallCancelled(call_id=call.call_id)

    async def ended() -> bool:
        await agent.ingress.bus.publish(cancelled.subject, cancelled.encode())
        return running.done()

    await until_async(ended, "the end of the call")
    with pytest.raises(CallCancelledError):
        await running


async def test_a_cancelled_suspended_call_is_cancelled_at_its_server_and_removed(
    agent: Agent,
) -> None:
    call = agent.call(TOOL)
    request = await agent.ingress.calls.request(call)
    agent.server.forget()  # calls of the fixture may not be cancelled yet
    cancelled = CallCancelled(call_id=call.call_id)
    await agent.ingress.bus.publish(cancelled.subject, cancelled.encode())

    async def is_cancelled() -> bool:
        return bool(agent.server.seen()["cancelled"].get(TOOL))

    await until_async(is_cancelled, "the cancellation at the server")
    with pytest.raises(UpstreamRefusedError) as caught:
        await agent.request(TOOL, answered(request))
    assert caught.value.data["upstream_code"] == -32602


async def test_a_continued_call_is_not_cancelled_by_the_id_of_its_first_round(agent: Agent) -> None:
    tool = "test_input_required_result_multi_round"
    first = agent.call(tool)
    request = await agent.ingress.calls.request(first)
    second = agent.call(tool, extra=answered(request))
    request = await agent.ingress.calls.request(second)
    stale = CallCancelled(call_id=first.call_id)
    await agent.ingress.bus.publish(stale.subject, stale.encode())
    done = json.loads((await agent.request(tool, answered(request))).body)
    assert done["content"][0]["text"].startswith("Multi-round complete")
