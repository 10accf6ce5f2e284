"""Several messages in one POST, which sessions of 2025-03-26 alone may send."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.gateway.family_gateway import NOW, FamilyGateway, calling, start_session
from harness.waits import until_blocking

OLD = "2025-03-26"
SAID = {"jsonrpc": "2.0", "method": "notifications/initialized"}
PING = {"jsonrpc": "2.0", "id": "p", "method": "ping"}


def sent(client: Client, messages: Any, version: str = OLD) -> Any:
    return client.post(messages, Mcp_Session_Id=start_session(client, version=version))


def test_each_message_of_a_batch_is_judged_on_its_own(place: FamilyGateway) -> None:
    messages = [
        calling("echo__say", 1, text="one"),
        SAID,
        calling("echo__nothing", 2),
        PING,
        {"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": {}},
        {"jsonrpc": "2.0", "id": True, "method": "ping"},
        {"jsonrpc": "2.0", "id": 4, "method": "no/such"},
        {"jsonrpc": "2.0", "id": "unasked", "result": {}},
        [PING],
        7,
    ]
    answer = sent(place.client(), messages)
    assert answer.status == 200
    found = {json.dumps(each["id"]): each for each in answer.json}
    assert found.keys() == {"1", "2", '"p"', "3", "4", "null"}
    assert found["1"]["result"]["content"][0]["text"] == "one"
    assert found["2"]["error"]["code"] == -32602
    assert found['"p"']["result"] == {}
    assert "alone" in found["3"]["error"]["message"]
    assert found["4"]["error"]["code"] == -32601
    unnamed = [each["error"]["code"] for each in answer.json if each["id"] is None]
    assert unnamed == [-32600] * 3


def test_calls_of_a_batch_run_side_by_side(place: FamilyGateway) -> None:
    messages = [calling("echo__wait", n, id=f"batch{n}", seconds=0.1) for n in range(32)]
    answer = sent(place.client(), messages)
    body = {each["id"]: each["result"]["content"][0]["text"] for each in answer.json}
    assert body == {n: f"batch{n}" for n in range(32)}


def test_a_batch_without_requests_is_accepted(place: FamilyGateway) -> None:
    answer = sent(place.client(), [SAID, {"jsonrpc": "2.0", "id": "unasked", "result": {}}])
    assert (answer.status, answer.body) == (202, b"")


@pytest.mark.parametrize(
    ("messages", "word"),
    [([], "1 to 32"), ([PING] * 2, "same id"), ([{**PING, "id": n} for n in range(33)], "1 to 32")],
)
def test_a_batch_that_is_none_or_unclear_is_refused_whole(
    place: FamilyGateway, messages: list[Any], word: str
) -> None:
    answer = sent(place.client(), messages)
    assert (answer.status, answer.error["code"]) == (400, -32600)
    assert word in answer.error["message"]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25"])
def test_no_other_revision_has_batches(place: FamilyGateway, version: str) -> None:
    answer = sent(place.client(), [PING], version)
    assert (answer.status, answer.error["code"]) == (400, -32600)


def test_a_batch_needs_a_session_and_no_other_revision_beside_it(place: FamilyGateway) -> None:
    client = place.client()
    assert client.post([PING]).error["code"] == -32600
    session = start_session(client, version=OLD)
    for version in (NOW, "2025-11-25"):
        answer = client.post([PING], Mcp_Session_Id=session, MCP_Protocol_Version=version)
        assert answer.error["code"] == -32600
    fine = client.post([PING], Mcp_Session_Id=session, MCP_Protocol_Version=OLD)
    assert fine.json == [{"jsonrpc": "2.0", "id": "p", "result": {}}]


def test_a_message_of_the_stateless_era_is_refused_within_a_batch(place: FamilyGateway) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": NOW}
    modern = {**PING, "params": {"_meta": meta}}
    (body,) = sent(place.client(), [modern]).json
    assert body["id"] == "p"
    assert "error" in body


def test_a_batch_with_more_to_say_is_a_stream_that_can_be_resumed(place: FamilyGateway) -> None:
    client = place.client()
    session = start_session(client, {"sampling": {}}, OLD)
    messages = [PING, calling("fix__test_sampling", 5, prompt="Say it")]
    with Events(client, messages, Mcp_Session_Id=session) as stream:
        assert stream.type == "text/event-stream"
        request = stream.until("sampling/createMessage")
        came = stream.last_id
    content = {"type": "text", "text": "said"}
    fields = {"role": "assistant", "content": content, "model": "m"}
    answer = {"jsonrpc": "2.0", "id": request["id"], "result": fields}
    beside = client.post([answer, {**PING, "id": "q"}], Mcp_Session_Id=session)
    assert [each["id"] for each in beside.json] == ["q"]
    there = place.client(replica=1)
    with Events(there, Mcp_Session_Id=session, Last_Event_ID=came) as stream:
        found = [stream.next()]
        while found[-1]["id"] != 5:
            found.append(stream.next())
        assert "said" in str(found[-1]["result"])
        assert stream.ended()


def test_a_call_of_a_batch_can_be_cancelled(place: FamilyGateway) -> None:
    client = place.client()
    session = start_session(client, version=OLD)
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    about = f"taken-back-{place.cluster.fused}"
    messages = [calling("echo__wait", 1, id=about, seconds=7), PING]
    with ThreadPoolExecutor(1) as pool:
        posted = pool.submit(client.post, messages, Mcp_Session_Id=session)
        until_blocking(lambda: any(call.get("id") == about for call in place.echo.arrived()))
        assert client.post([cancelled], Mcp_Session_Id=session).status == 202
        found = posted.result().json
    codes = {each["id"]: each.get("error", {}).get("data", {}).get("code") for each in found}
    assert codes == {1: "cancelled", "p": None}
