"""Clients of the official A2A SDK, of both protocol versions, with the tools of a key."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.client.client import Client
from a2a.helpers.proto_helpers import new_data_part, new_text_part
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError

from harness.gateway.launched_gateway import Launched
from harness.waits import until_async

KEY = "tbk_bot_e2e-secret-of-the-a2a-client"
OTHER_KEY = "tbk_other_e2e-secret-of-another-a2a-client"
POOR_KEY = "tbk_poor_e2e-secret-without-a-budget"
SLOW = '''
import asyncio

def add(a: int, b: int) -> int:
    """Add."""
    return a + b

def shout(text: str) -> str:
    """Shout."""
    return text.upper()

def fail() -> str:
    """Fail."""
    raise ValueError("no luck")

async def wait() -> str:
    """Wait."""
    await asyncio.sleep(3600)
    return "waited"
'''
OLD = pytest.mark.parametrize("version", ["1.0", "0.3"])


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run a gateway with functions."""
    gateway = Launched(tmp_path_factory.mktemp("a2a-clients"))
    (gateway.directory / "work.py").write_text(SLOW)
    functions = [f"work:{name}" for name in ("add", "shout", "fail", "wait")]
    server = {"python": functions, "cwd": str(gateway.directory), "timeout": 3000}
    own = {"tools": ["calc__add", "calc__shout", "calc__fail", "calc__wait"]}
    keys = {
        "bot": {"secret": KEY, **own},
        "other": {"secret": OTHER_KEY, "tools": ["calc__add"]},
        "poor": {"secret": POOR_KEY, "tools": ["calc__add"], "budget": {"usd": 0, "per": "month"}},
    }
    with gateway.running({"servers": {"calc": server}, "keys": keys, "prices": {"*": 0.01}}):
        gateway.until_listed(gateway.client(KEY), *own["tools"])
        yield gateway


def origin_of(gateway: Launched) -> str:
    return f"http://127.0.0.1:{gateway.port}"


@asynccontextmanager
async def connected(
    gateway: Launched, version: str, key: str = KEY, *, streaming: bool = False
) -> AsyncIterator[tuple[Client, AgentCard]]:
    """Run a client of the SDK that speaks one version."""
    headers = {"Authorization": f"Bearer {key}", "A2A-Version": version}
    async with httpx.AsyncClient(headers=headers, timeout=60) as http:
        card = await A2ACardResolver(http, origin_of(gateway)).get_agent_card()
        kept = [each for each in card.supported_interfaces if each.protocol_version == version]
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(kept)
        factory = ClientFactory(ClientConfig(httpx_client=http, streaming=streaming))
        yield factory.create(card), card


def message(skill: str, arguments: Any = None, text: str = "", **more: Any) -> SendMessageRequest:
    """Return a message with arguments, or with text."""
    part = new_text_part(text) if text else new_data_part(arguments or {})
    made = Message(message_id="m", role=Role.ROLE_USER, parts=[part])
    made.metadata["skillId"] = skill
    return SendMessageRequest(message=made, **more)


async def last(client: Client, request: SendMessageRequest) -> Task:
    """Return the task of the last response."""
    found = [each async for each in client.send_message(request)]
    return found[-1].task


def texts(task: Task) -> list[str]:
    return [part.text for each in task.artifacts for part in each.parts if part.text]


@OLD
async def test_the_card_lists_the_tools_of_the_key(launched: Launched, version: str) -> None:
    async with connected(launched, version) as (client, card):
        listed = {each.id for each in card.skills}
        assert listed == {f"calc__{name}" for name in ("add", "shout", "fail", "wait")}
        assert card.supported_interfaces[0].url == f"{origin_of(launched)}/a2a"
        extended = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
        assert {each.id for each in extended.skills} == listed
    async with connected(launched, version, OTHER_KEY) as (_, card):
        assert [each.id for each in card.skills] == ["calc__add"]


def test_a_card_without_a_key_lists_no_tool(launched: Launched) -> None:
    for path in ("a2a/agent-card.json", ".well-known/agent-card.json", ".well-known/agent.json"):
        answer = httpx.get(f"{origin_of(launched)}/{path}")
        assert answer.status_code == 200
        assert [each["id"] for each in answer.json()["skills"]] == ["tools"]
        assert "calc" not in answer.text
        wrong = httpx.get(
            f"{origin_of(launched)}/{path}", headers={"Authorization": "Bearer tbk_x_wrong"}
        )
        assert wrong.status_code == 401
    assert httpx.post(f"{origin_of(launched)}/a2a", json={}).status_code == 401


@OLD
async def test_a_message_calls_a_tool(launched: Launched, version: str) -> None:
    async with connected(launched, version) as (client, _):
        task = await last(client, message("calc__add", {"a": 2, "b": 3}))
        assert task.status.state == TaskState.TASK_STATE_COMPLETED
        assert texts(task) == ["5"]
        again = await client.get_task(GetTaskRequest(id=task.id))
        assert texts(again) == ["5"]
        assert not again.history
        whole = await client.get_task(GetTaskRequest(id=task.id, history_length=5))
        assert whole.history[0].role == Role.ROLE_USER
        if version == "1.0":
            query = ListTasksRequest(context_id=task.context_id, page_size=1)
            found = await client.list_tasks(query)
            assert ([each.id for each in found.tasks], found.total_size) == ([task.id], 1)
        assert texts(await last(client, message("calc__shout", text="hello"))) == ["HELLO"]
        given = json.dumps({"a": 1, "b": 1})
        assert texts(await last(client, message("calc__add", text=given))) == ["2"]


@OLD
async def test_a_stream_ends_with_the_result(launched: Launched, version: str) -> None:
    async with connected(launched, version, streaming=True) as (client, _):
        request = message("calc__add", {"a": 2, "b": 3})
        events = [each async for each in client.send_message(request)]
        kinds = [each.WhichOneof("payload") for each in events]
        assert kinds[0] == "task"
        assert kinds[-2:] == ["artifact_update", "status_update"]
        assert events[-2].artifact_update.artifact.parts[0].text == "5"
        assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED


@OLD
async def test_a_long_call_is_a_task_that_can_be_cancelled(
    launched: Launched, version: str
) -> None:
    async with connected(launched, version) as (client, _):
        now = SendMessageConfiguration(return_immediately=True)
        task = await last(client, message("calc__wait", configuration=now))
        assert task.status.state in (TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING)

        async def runs() -> bool:
            rows = json.loads(
                (await asyncio.to_thread(launched.toolbus, "status", "--json")).stdout
            )
            return any(each.get("in_flight") for each in rows["servers"])

        await until_async(runs, "the call at the server")
        async with connected(launched, version, OTHER_KEY) as (other, _):
            for attempt in (
                other.get_task(GetTaskRequest(id=task.id)),
                other.cancel_task(CancelTaskRequest(id=task.id)),
            ):
                with pytest.raises(TaskNotFoundError):
                    await attempt
        cancelled = await client.cancel_task(CancelTaskRequest(id=task.id))
        assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
        found = await client.get_task(GetTaskRequest(id=task.id))
        assert found.status.state == TaskState.TASK_STATE_CANCELED


@OLD
async def test_failures_and_denials_are_states(launched: Launched, version: str) -> None:
    async with connected(launched, version) as (client, _):
        task = await last(client, message("calc__fail"))
        assert task.status.state == TaskState.TASK_STATE_FAILED
        assert "no luck" in task.status.message.parts[0].text
    async with connected(launched, version, POOR_KEY) as (client, _):
        task = await last(client, message("calc__add", {"a": 1, "b": 1}))
        assert task.status.state == TaskState.TASK_STATE_REJECTED
        assert task.status.message.parts[0].text.startswith("budget_exceeded")


@OLD
async def test_an_unknown_skill_or_message_is_invalid(launched: Launched, version: str) -> None:
    async with connected(launched, version, OTHER_KEY) as (client, _):
        for request in (
            message("calc__shout", text="x"),
            message("nothing", {}),
            message("calc__add", text="two and three"),
        ):
            with pytest.raises(InvalidParamsError):
                await last(client, request)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"method": "Unknown"}, -32601),
        ({"method": "CreateTaskPushNotificationConfig"}, -32003),
        ({"method": "tasks/pushNotificationConfig/set"}, -32003),
        ({"method": "GetTask", "params": []}, -32602),
        ({"method": "SendMessage", "params": {}}, -32602),
        ({"method": "SendMessage", "params": {"message": {"parts": []}}}, -32602),
        ({"method": "SendMessage", "params": {"message": {"parts": [1]}}}, -32602),
        ({"method": "ListTasks", "params": {"pageSize": 0}}, -32602),
        ({"method": "ListTasks", "params": {"pageToken": "x"}}, -32602),
        ({"method": "ListTasks", "params": {"status": "x"}}, -32602),
        ({"method": "ListTasks", "params": {"statusTimestampAfter": "x"}}, -32602),
        ({"method": "ListTasks", "params": {"historyLength": -1}}, -32602),
        ({"method": "SendMessage", "params": {"message": {"taskId": "x"}}}, -32001),
        ({"method": "GetTask", "params": {"id": {}}}, -32001),
        ({"method": 1}, -32600),
        ({"jsonrpc": "1.0", "method": "GetTask"}, -32600),
        ({"id": {}, "method": "GetTask"}, -32600),
        ([], -32600),
        ("{", -32700),
        ("[" * 100, -32700),
    ],
)
def test_invalid_requests_have_the_codes_of_the_protocol(
    launched: Launched, body: Any, code: int
) -> None:
    if isinstance(body, dict):
        body = {"jsonrpc": "2.0", "id": 1, **body}
    headers = {"Authorization": f"Bearer {KEY}"}
    content = body if isinstance(body, str) else json.dumps(body)
    sent = {**headers, "Content-Type": "application/json"}
    answer = httpx.post(f"{origin_of(launched)}/a2a", content=content, headers=sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, code)
    wrong = httpx.post(
        f"{origin_of(launched)}/a2a",
        json={"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}},
        headers={**headers, "A2A-Version": "0.3"},
    )
    assert wrong.json()["error"]["code"] == -32009


def test_the_calls_are_recorded_like_all_others(launched: Launched) -> None:
    part = {"data": {"text": "recorded"}}
    params = {"message": {"parts": [part], "metadata": {"skillId": "calc__shout"}}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    refused = httpx.post(f"{origin_of(launched)}/a2a", json=body, headers=headers).json()
    assert refused["error"]["data"]["code"] == "unknown_tool"
    launched.eventual_events("key = 'other' AND tool = 'shout'", "call.denied")
    headers = {"x-api-key": KEY}
    answer = httpx.post(f"{origin_of(launched)}/a2a", json=body, headers=headers).json()
    assert answer["result"]["task"]["artifacts"][0]["parts"] == [{"text": "RECORDED"}]
    rows = launched.eventual_events("key = 'bot' AND tool = 'shout'", "call.completed")
    assert rows["call.completed"]["charge"] == 10_000


@OLD
async def test_a_skill_is_named_in_metadata_or_data_or_by_the_grant(
    launched: Launched, version: str
) -> None:
    numbers = {"a": 2, "b": 2}
    async with connected(launched, version) as (client, _):
        whole = {"skill": "calc__add", "arguments": numbers}
        assert texts(await last(client, message("", whole))) == ["4"]
        with pytest.raises(InvalidParamsError):
            await last(client, message("", numbers))
    async with connected(launched, version, OTHER_KEY) as (client, _):
        assert texts(await last(client, message("", numbers))) == ["4"]
