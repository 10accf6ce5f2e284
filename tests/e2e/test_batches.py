"""Several messages in one POST, which only sessions of 2025-03-26 may send."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.gateway.family_gateway import NOW, FamilyGateway, calling, start_session
from harness.waits import until_blocking

OLD = "2025-03-26"
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
PING = {"jsonrpc": "2.0", "id": "p", "method": "ping"}


def post_batch(client: Client, messages: Any, version: str = OLD) -> Any:
    return client.post(messages, Mcp_Session_Id=start_session(client, version=version))


def test_each_message_of_a_batch_is_validated_separately(deployment: FamilyGateway) -> None:
    messages = [
        calling("echo__say", 1, text="one"),
        INITIALIZED,
        calling("echo__nothing", 2),
        PING,
        {"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": {}},
        {"jsonrpc": "2.0", "id": True, "method": "ping"},
        {"jsonrpc": "2.0", "id": 4, "method": "no/such"},
        {"jsonrpc": "2.0", "id": "unasked", "result": {}},
        [PING],
        7,
    ]
    answer = post_batch(deployment.client(), messages)
    assert answer.status == 200
    replies = {json.dumps(each["id"]): each for each in answer.json}
    assert replies.keys() == {"1", "2", '"p"', "3", "4", "null"}
    assert replies["1"]["result"]["content"][0]["text"] == "one"
    assert replies["2"]["error"]["code"] == -32602
    assert replies['"p"']["result"] == {}
    assert "alone" in replies["3"]["error"]["message"]
    assert replies["4"]["error"]["code"] == -32601
    unnamed = [each["error"]["code"] for each in answer.json if each["id"] is None]
    assert unnamed == [-32600] * 3


def test_calls_of_a_batch_run_concurrently(deployment: FamilyGateway) -> None:
    messages = [calling("echo__wait", n, id=f"batch{n}", seconds=0.1) for n in range(32)]
    answer = post_batch(deployment.client(), messages)
    body = {each["id"]: each["result"]["content"][0]["text"] for each in answer.json}
    assert body == {n: f"batch{n}" for n in range(32)}


def test_a_batch_without_requests_is_accepted(deployment: FamilyGateway) -> None:
    answer = post_batch(
        deployment.client(), [INITIALIZED, {"jsonrpc": "2.0", "id": "unasked", "result": {}}]
    )
    assert (answer.status, answer.body) == (202, b"")


@pytest.mark.parametrize(
    ("messages", "word"),
    [([], "1 to 32"), ([PING] * 2, "same id"), ([{**PING, "id": n} for n in range(33)], "1 to 32")],
)
def test_an_empty_ambiguous_or_oversized_batch_is_rejected_whole(
    deployment: FamilyGateway, messages: list[Any], word: str
) -> None:
    answer = post_batch(deployment.client(), messages)
    assert (answer.status, answer.error["code"]) == (400, -32600)
    assert word in answer.error["message"]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25"])
def test_no_other_revision_has_batches(deployment: FamilyGateway, version: str) -> None:
    answer = post_batch(deployment.client(), [PING], version)
    assert (answer.status, answer.error["code"]) == (400, -32600)


def test_a_batch_needs_a_session_and_no_other_revision_header(deployment: FamilyGateway) -> None:
    client = deployment.client()
    assert client.post([PING]).error["code"] == -32600
    session = start_session(client, version=OLD)
    for version in (NOW, "2025-11-25"):
        answer = client.post([PING], Mcp_Session_Id=session, MCP_Protocol_Version=version)
        assert answer.error["code"] == -32600
    fine = client.post([PING], Mcp_Session_Id=session, MCP_Protocol_Version=OLD)
    assert fine.json == [{"jsonrpc": "2.0", "id": "p", "result": {}}]


def test_a_stateless_message_is_rejected_within_a_batch(deployment: FamilyGateway) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": NOW}
    modern = {**PING, "params": {"_meta": meta}}
    (body,) = post_batch(deployment.client(), [modern]).json
    assert body["id"] == "p"
    assert "error" in body


def test_a_batch_with_server_requests_is_a_resumable_stream(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client, {"sampling": {}}, OLD)
    messages = [PING, calling("fix__test_sampling", 5, prompt="Say it")]
    with Events(client, messages, Mcp_Session_Id=session) as stream:
        assert stream.type == "text/event-stream"
        request = stream.until("sampling/createMessage")
        event_id = stream.last_id
    content = {"type": "text", "text": "an answer"}
    fields = {"role": "assistant", "content": content, "model": "m"}
    answer = {"jsonrpc": "2.0", "id": request["id"], "result": fields}
    second = client.post([answer, {**PING, "id": "q"}], Mcp_Session_Id=session)
    assert [each["id"] for each in second.json] == ["q"]
    there = deployment.client(replica=1)
    with Events(there, Mcp_Session_Id=session, Last_Event_ID=event_id) as stream:
        replies = [stream.next()]
        while replies[-1]["id"] != 5:
            replies.append(stream.next())
        assert "an answer" in str(replies[-1]["result"])
        assert stream.ended()


def test_a_call_of_a_batch_can_be_cancelled(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client, version=OLD)
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    about = f"taken-back-{deployment.cluster.fused}"
    messages = [calling("echo__wait", 1, id=about, seconds=7), PING]
    with ThreadPoolExecutor(1) as pool:
        posted = pool.submit(client.post, messages, Mcp_Session_Id=session)
        until_blocking(lambda: any(call.get("id") == about for call in deployment.echo.arrived()))
        assert client.post([cancelled], Mcp_Session_Id=session).status == 202
        replies = posted.result().json
    codes = {each["id"]: each.get("error", {}).get("data", {}).get("code") for each in replies}
    assert codes == {1: "cancelled", "p": None}
