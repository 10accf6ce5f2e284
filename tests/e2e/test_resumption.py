"""Connections that end before their answers, and clients that resume their streams."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.gateway.family_gateway import (
    OTHER,
    ROOT,
    FamilyGateway,
    calling,
    replicated,
    start_session,
)
from harness.waits import until_blocking
from toolbus_common.config import Server

REPLICAS = pytest.mark.parametrize("replica", [0, 1], ids=["here", "elsewhere"])
ELICITATION = calling("fix__test_elicitation", 5, message="Who?")
POLL_SECONDS = 0.2


def resumed(client: Client, session: str, event_id: str) -> Events:
    return Events(client, Mcp_Session_Id=session, Last_Event_ID=event_id)


def answered(client: Client, session: str, request: dict[str, Any]) -> None:
    fields = {"action": "accept", "content": {"response": "Ada"}}
    answer = {"jsonrpc": "2.0", "id": request["id"], "result": fields}
    assert client.post(answer, Mcp_Session_Id=session).status == 202


# -- answers ---------------------------------------------------------------------------------------


@REPLICAS
def test_a_call_continues_without_its_client_which_resumes_for_the_answer(
    deployment: FamilyGateway, replica: int
) -> None:
    client, there = deployment.client(), deployment.client(replica=replica)
    session = start_session(client, {"elicitation": {}})
    with Events(client, ELICITATION, Mcp_Session_Id=session) as stream:
        primed = stream.primed()
        request = stream.until("elicitation/create")
        event_id = stream.last_id
    assert primed != event_id
    with resumed(there, session, primed) as stream:
        assert stream.next() == request, "the message after the first id"
        assert stream.last_id == event_id, "with its original id"
    answered(client, session, request)
    with resumed(there, session, event_id) as stream:
        last = stream.next()
        assert (last["id"], "action=accept" in str(last["result"])) == (5, True)
        assert stream.ended()
        end = stream.last_id
    with resumed(client, session, event_id) as stream:
        assert stream.next() == last, "the answer is stored for a while"
    with resumed(there, session, end) as stream:
        assert stream.status == 200
        assert stream.ended(), "there is nothing after the answer"


@REPLICAS
def test_a_resumed_stream_receives_the_answer_live(deployment: FamilyGateway, replica: int) -> None:
    client, there = deployment.client(), deployment.client(replica=replica)
    session = start_session(client, {"elicitation": {}})
    with Events(client, ELICITATION, Mcp_Session_Id=session) as stream:
        request = stream.until("elicitation/create")
        event_id = stream.last_id
    with resumed(there, session, event_id) as stream:
        assert stream.status == 200
        answered(client, session, request)
        assert stream.next()["id"] == 5


@REPLICAS
def test_an_event_id_of_another_session_is_rejected(
    deployment: FamilyGateway, replica: int
) -> None:
    client = deployment.client()
    session = start_session(client, {"elicitation": {}})
    with Events(client, ELICITATION, Mcp_Session_Id=session) as stream:
        request = stream.until("elicitation/create")
        event_id = stream.last_id
    unknown = event_id.replace("a", "a0", 1)
    for secret in (OTHER, ROOT):
        thief = deployment.client(secret, replica)
        theirs = start_session(thief)
        with (
            resumed(thief, theirs, event_id) as stolen,
            resumed(thief, theirs, unknown) as unknown_stream,
        ):
            assert (stolen.status, unknown_stream.status) == (400, 400)
            assert stolen.body == unknown_stream.body, "the two cases cannot be distinguished"
        with resumed(deployment.client(OTHER), session, event_id) as stream:
            assert stream.status == 404
    answered(client, session, request)
    with resumed(client, session, event_id) as stream:
        assert stream.next()["id"] == 5, "its own client still has it"


def test_a_call_without_its_client_is_cancelled_only_on_request(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client, {"elicitation": {}})
    with Events(client, ELICITATION, Mcp_Session_Id=session) as stream:
        stream.until("elicitation/create")
        event_id = stream.last_id
    again = client.post(calling("echo__say", 5, text="no"), Mcp_Session_Id=session)
    assert again.status == 400, "the call still runs"
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
    assert client.post(cancelled, Mcp_Session_Id=session).status == 202
    with resumed(client, session, event_id) as stream:
        assert stream.next()["error"]["data"]["code"] == "cancelled"


def test_event_ids_of_a_session_are_never_reused(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client, {"elicitation": {}})
    event_ids: list[str] = []
    for replica in (0, 1):
        there = deployment.client(replica=replica)
        with Events(there, ELICITATION, Mcp_Session_Id=session) as stream:
            answered(there, session, stream.until("elicitation/create"))
            stream.next()
            event_ids += stream.ids
    with Events(client, Mcp_Session_Id=session) as stream:
        event_ids.append(stream.primed())
    assert len(event_ids) == len(set(event_ids)) == 7


def test_an_older_client_gets_ids_but_no_event_without_a_message(deployment: FamilyGateway) -> None:
    client = deployment.client()
    call = calling("fix__test_tool_with_progress", 5)
    call["params"]["_meta"] = {"progressToken": 1}
    session = start_session(client, version="2025-06-18")
    with Events(client, call, Mcp_Session_Id=session) as stream:
        assert stream.next()["method"] == "notifications/progress"
        assert len(stream.ids) == 1
        first = stream.last_id
    with resumed(client, session, first) as stream:
        stream.until("notifications/progress")
        while "result" not in stream.next():
            pass
        assert stream.ended()


def test_an_immediate_answer_is_plain_json_and_is_not_stored(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client, {"elicitation": {}, "roots": {}})
    answer = client.post(calling("echo__say", 1, text="hi"), Mcp_Session_Id=session)
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == "hi"


# -- a session's own stream ------------------------------------------------------------------------


@REPLICAS
def test_a_resumed_session_stream_delivers_missed_notifications(
    deployment: FamilyGateway, replica: int
) -> None:
    client, there = deployment.client(), deployment.client(replica=replica)
    session = start_session(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        primed = stream.primed()
    deployment.cluster.declare(deployment.configuration(more=Server(url=deployment.echo.url)))
    try:
        until_blocking(lambda: "more__say" in client.tools(), "the new server")
        with resumed(there, session, primed) as stream:
            stream.until("notifications/tools/list_changed")
            assert stream.last_id.rpartition("-")[0] == primed.rpartition("-")[0]
    finally:
        deployment.cluster.declare(deployment.configuration())
        until_blocking(lambda: "more__say" not in client.tools(), "the server is gone")


def test_a_stream_of_a_lost_replica_starts_again(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client)
    with resumed(client, session, "s00000000dead.1-4") as stream:
        assert stream.primed().startswith("s")
        assert "dead" not in stream.last_id
    with resumed(client, session, "a00000000dead.1-4") as stream:
        assert stream.status == 400


@REPLICAS
def test_a_resumed_stream_ends_with_its_session(deployment: FamilyGateway, replica: int) -> None:
    client, there = deployment.client(), deployment.client(replica=replica)
    session = start_session(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        primed = stream.primed()
    with resumed(there, session, primed) as stream:
        assert stream.status == 200
        assert client.delete(Mcp_Session_Id=session).status == 204
        assert stream.ended()
    with resumed(client, session, primed) as stream:
        assert stream.status == 404


# -- clients that have to poll ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def short_streams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyGateway]:
    """Run two replicas that close streams whose answers take long."""
    fields = {"TOOLBUS_POLL_AFTER": str(POLL_SECONDS)}
    with replicated(tmp_path_factory.mktemp("impatient"), fused=False, **fields) as deployment:
        yield deployment


@REPLICAS
def test_a_client_is_disconnected_with_an_id_and_polls_for_its_answer(
    short_streams: FamilyGateway, replica: int
) -> None:
    client, there = short_streams.client(), short_streams.client(replica=replica)
    session = start_session(client)
    with Events(
        client, calling("echo__wait", 5, id="x", seconds=2), Mcp_Session_Id=session
    ) as sent:
        primed = sent.primed()
        assert sent.ended()
        assert sent.retry > 0
    with resumed(there, session, primed) as stream:
        assert stream.next()["result"]["content"][0]["text"] == "x"


async def test_the_sdks_client_resumes_by_itself(short_streams: FamilyGateway) -> None:
    event_ids: list[str] = []

    async def note(request: httpx2.Request) -> None:
        event_ids.extend(filter(None, [request.headers.get("last-event-id")]))

    client = short_streams.client()
    headers = {"Authorization": f"Bearer {client.key}"}
    hooks: dict[str, list[Any]] = {"request": [note]}
    async with httpx2.AsyncClient(headers=headers, timeout=30, event_hooks=hooks) as http:
        transport = streamable_http_client(client.endpoint, http_client=http)
        async with SdkClient(transport, mode="legacy") as sdk:
            result = await sdk.call_tool("echo__wait", {"id": "sdk", "seconds": 2})
    assert result.content[0].text == "sdk"  # type: ignore[union-attr]
    assert any(event_id.startswith("a") for event_id in event_ids)


def test_an_older_client_is_never_disconnected(short_streams: FamilyGateway) -> None:
    client = short_streams.client()
    call = calling("echo__wait", 5, id="old", seconds=1)
    answer = client.post(call, Mcp_Session_Id=start_session(client, version="2025-06-18"))
    assert answer.text == "old"
