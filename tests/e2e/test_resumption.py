"""Connections that end before their answers, and the clients that come back for them."""

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
WHO = calling("fix__test_elicitation", 5, message="Who?")
POLL_SECONDS = 0.2


def resumed(client: Client, session: str, event_id: str) -> Events:
    return Events(client, Mcp_Session_Id=session, Last_Event_ID=event_id)


def answered(client: Client, session: str, asked: dict[str, Any]) -> None:
    fields = {"action": "accept", "content": {"response": "Ada"}}
    answer = {"jsonrpc": "2.0", "id": asked["id"], "result": fields}
    assert client.post(answer, Mcp_Session_Id=session).status == 202


# -- answers ---------------------------------------------------------------------------------------


@REPLICAS
def test_a_call_goes_on_without_its_client_who_comes_back_for_the_answer(
    place: FamilyGateway, replica: int
) -> None:
    client, there = place.client(), place.client(replica=replica)
    session = start_session(client, {"elicitation": {}})
    with Events(client, WHO, Mcp_Session_Id=session) as stream:
        primed = stream.primed()
        request = stream.until("elicitation/create")
        came = stream.last_id
    assert primed != came
    with resumed(there, session, primed) as stream:
        assert stream.next() == request, "what came after the first id"
        assert stream.last_id == came, "under the id it had"
    answered(client, session, request)
    with resumed(there, session, came) as stream:
        last = stream.next()
        assert (last["id"], "action=accept" in str(last["result"])) == (5, True)
        assert stream.ended()
        end = stream.last_id
    with resumed(client, session, came) as stream:
        assert stream.next() == last, "it is kept for a while"
    with resumed(there, session, end) as stream:
        assert stream.status == 200
        assert stream.ended(), "there is nothing after the answer"


@REPLICAS
def test_an_answer_comes_live_to_who_came_back(place: FamilyGateway, replica: int) -> None:
    client, there = place.client(), place.client(replica=replica)
    session = start_session(client, {"elicitation": {}})
    with Events(client, WHO, Mcp_Session_Id=session) as stream:
        request = stream.until("elicitation/create")
        came = stream.last_id
    with resumed(there, session, came) as stream:
        assert stream.status == 200
        answered(client, session, request)
        assert stream.next()["id"] == 5


@REPLICAS
def test_an_event_of_another_session_leads_nowhere(place: FamilyGateway, replica: int) -> None:
    client = place.client()
    session = start_session(client, {"elicitation": {}})
    with Events(client, WHO, Mcp_Session_Id=session) as stream:
        request = stream.until("elicitation/create")
        came = stream.last_id
    unknown = came.replace("a", "a0", 1)
    for secret in (OTHER, ROOT):
        thief = place.client(secret, replica)
        theirs = start_session(thief)
        with resumed(thief, theirs, came) as stolen, resumed(thief, theirs, unknown) as made_up:
            assert (stolen.status, made_up.status) == (400, 400)
            assert stolen.body == made_up.body, "and nothing tells which"
        with resumed(place.client(OTHER), session, came) as stream:
            assert stream.status == 404
    answered(client, session, request)
    with resumed(client, session, came) as stream:
        assert stream.next()["id"] == 5, "its own client still has it"


def test_a_call_without_its_client_is_cancelled_by_its_word_only(place: FamilyGateway) -> None:
    client = place.client()
    session = start_session(client, {"elicitation": {}})
    with Events(client, WHO, Mcp_Session_Id=session) as stream:
        stream.until("elicitation/create")
        came = stream.last_id
    again = client.post(calling("echo__say", 5, text="no"), Mcp_Session_Id=session)
    assert again.status == 400, "it is still under way"
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
    assert client.post(cancelled, Mcp_Session_Id=session).status == 202
    with resumed(client, session, came) as stream:
        assert stream.next()["error"]["data"]["code"] == "cancelled"


def test_ids_of_a_session_are_never_used_twice(place: FamilyGateway) -> None:
    client = place.client()
    session = start_session(client, {"elicitation": {}})
    seen: list[str] = []
    for replica in (0, 1):
        there = place.client(replica=replica)
        with Events(there, WHO, Mcp_Session_Id=session) as stream:
            answered(there, session, stream.until("elicitation/create"))
            stream.next()
            seen += stream.ids
    with Events(client, Mcp_Session_Id=session) as stream:
        seen.append(stream.primed())
    assert len(seen) == len(set(seen)) == 7


def test_an_older_client_has_ids_but_no_event_without_a_message(place: FamilyGateway) -> None:
    client = place.client()
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


def test_an_answer_at_once_is_plain_json_and_is_not_kept(place: FamilyGateway) -> None:
    client = place.client()
    session = start_session(client, {"elicitation": {}, "roots": {}})
    answer = client.post(calling("echo__say", 1, text="hi"), Mcp_Session_Id=session)
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == "hi"


# -- a session's own stream ------------------------------------------------------------------------


@REPLICAS
def test_what_was_told_meanwhile_is_there_for_who_comes_back(
    place: FamilyGateway, replica: int
) -> None:
    client, there = place.client(), place.client(replica=replica)
    session = start_session(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        primed = stream.primed()
    place.cluster.declare(place.configuration(more=Server(url=place.echo.url)))
    try:
        until_blocking(lambda: "more__say" in client.tools(), "the new server")
        with resumed(there, session, primed) as stream:
            stream.until("notifications/tools/list_changed")
            assert stream.last_id.rpartition("-")[0] == primed.rpartition("-")[0]
    finally:
        place.cluster.declare(place.configuration())
        until_blocking(lambda: "more__say" not in client.tools(), "the server is gone")


def test_a_stream_of_a_replica_that_is_gone_begins_anew(place: FamilyGateway) -> None:
    client = place.client()
    session = start_session(client)
    with resumed(client, session, "s00000000dead.1-4") as stream:
        assert stream.primed().startswith("s")
        assert "dead" not in stream.last_id
    with resumed(client, session, "a00000000dead.1-4") as stream:
        assert stream.status == 400


@REPLICAS
def test_a_resumed_stream_ends_with_its_session(place: FamilyGateway, replica: int) -> None:
    client, there = place.client(), place.client(replica=replica)
    session = start_session(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        primed = stream.primed()
    with resumed(there, session, primed) as stream:
        assert stream.status == 200
        assert client.delete(Mcp_Session_Id=session).status == 204
        assert stream.ended()
    with resumed(client, session, primed) as stream:
        assert stream.status == 404


# -- connections that are let go -------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyGateway]:
    """Two replicas that send clients away whose answers take their time."""
    fields = {"TOOLBUS_POLL_AFTER": str(POLL_SECONDS)}
    with replicated(tmp_path_factory.mktemp("impatient"), fused=False, **fields) as made:
        yield made


@REPLICAS
def test_a_client_is_sent_away_with_an_id_and_comes_back_for_its_answer(
    impatient: FamilyGateway, replica: int
) -> None:
    client, there = impatient.client(), impatient.client(replica=replica)
    session = start_session(client)
    with Events(
        client, calling("echo__wait", 5, id="x", seconds=2), Mcp_Session_Id=session
    ) as sent:
        primed = sent.primed()
        assert sent.ended()
        assert sent.retry > 0
    with resumed(there, session, primed) as stream:
        assert stream.next()["result"]["content"][0]["text"] == "x"


async def test_the_sdks_client_comes_back_by_itself(impatient: FamilyGateway) -> None:
    came_back: list[str] = []

    async def note(request: httpx2.Request) -> None:
        came_back.extend(filter(None, [request.headers.get("last-event-id")]))

    client = impatient.client()
    headers = {"Authorization": f"Bearer {client.key}"}
    hooks: dict[str, list[Any]] = {"request": [note]}
    async with httpx2.AsyncClient(headers=headers, timeout=30, event_hooks=hooks) as http:
        transport = streamable_http_client(client.endpoint, http_client=http)
        async with SdkClient(transport, mode="legacy") as sdk:
            result = await sdk.call_tool("echo__wait", {"id": "sdk", "seconds": 2})
    assert result.content[0].text == "sdk"  # type: ignore[union-attr]
    assert any(event_id.startswith("a") for event_id in came_back)


def test_an_older_client_is_never_sent_away(impatient: FamilyGateway) -> None:
    client = impatient.client()
    call = calling("echo__wait", 5, id="old", seconds=1)
    answer = client.post(call, Mcp_Session_Id=start_session(client, version="2025-06-18"))
    assert answer.text == "old"
