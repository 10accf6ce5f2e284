"""Session-based clients over HTTP: sessions, their streams, and server requests."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.gateway.family_gateway import (
    OTHER,
    ROOT,
    TENANTS,
    FamilyGateway,
    calling,
    start_session,
)
from harness.waits import until_blocking
from toolbus_common.config import Server

# -- sessions --------------------------------------------------------------------------------------


def test_a_session_lasts_from_initialize_to_delete(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client)
    assert client.request("tools/list", Mcp_Session_Id=session).status == 200
    assert client.delete(Mcp_Session_Id=session).status == 204
    answer = client.request("tools/list", Mcp_Session_Id=session)
    assert (answer.status, answer.error["code"]) == (404, -32600)
    assert client.delete(Mcp_Session_Id=session).status == 404


def test_any_replica_serves_a_session_and_learns_of_its_end(deployment: FamilyGateway) -> None:
    here, there = deployment.client(), deployment.client(replica=1)
    session = start_session(here)
    assert there.post(calling("echo__say", 1, text="hi"), Mcp_Session_Id=session).text == "hi"
    assert there.delete(Mcp_Session_Id=session).status == 204
    until_blocking(
        lambda: here.request("ping", Mcp_Session_Id=session).status == 404,
        "the other replica ends the session",
    )


def test_a_session_of_another_key_is_unknown(deployment: FamilyGateway) -> None:
    session = start_session(deployment.client())
    other = deployment.client(OTHER)
    assert other.request("tools/list", Mcp_Session_Id=session).status == 404
    assert other.delete(Mcp_Session_Id=session).status == 404
    assert deployment.client().request("ping", Mcp_Session_Id=session).status == 200, (
        "the session still exists"
    )


@pytest.mark.parametrize("session", ["x", "A" * 300, "=", "\xe4"])
def test_an_invalid_session_id_is_not_found(deployment: FamilyGateway, session: str) -> None:
    assert deployment.client().request("ping", Mcp_Session_Id=session).status == 404


def test_an_altered_session_id_is_not_found(deployment: FamilyGateway) -> None:
    session = start_session(deployment.client())
    for other in (session + "A", session[:-1], session + "=", f"!{session}", session.swapcase()):
        assert deployment.client().request("ping", Mcp_Session_Id=other).status == 404


def test_a_request_id_in_use_is_rejected_only_in_its_session(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session, another = start_session(client), start_session(client)
    waiting = calling("echo__wait", "same", id="twice", seconds=7)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, waiting, Mcp_Session_Id=session)
        until_blocking(lambda: any(call.get("id") == "twice" for call in deployment.echo.arrived()))
        again = client.post(calling("echo__say", "same", text="no"), Mcp_Session_Id=session)
        assert (again.status, again.error["code"]) == (400, -32600)
        assert again.json["id"] == "same"
        elsewhere = client.post(calling("echo__say", "same", text="b"), Mcp_Session_Id=another)
        assert elsewhere.text == "b"
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        about = {**cancelled, "params": {"requestId": "same"}}
        assert client.post(about, Mcp_Session_Id=session).status == 202
        assert first.result().code == "cancelled"
    free = client.post(calling("echo__say", "same", text="c"), Mcp_Session_Id=session)
    assert free.text == "c"


def test_fifty_tenants_with_the_same_ids_at_once_get_their_own_replies(
    deployment: FamilyGateway,
) -> None:
    together = Barrier(len(TENANTS))

    def tenant(number: int) -> list[str]:
        client = deployment.client(TENANTS[number], number % 2)
        session = start_session(client)
        together.wait(60)
        received = []
        for request_id in (1, "1", 2):
            text = f"{number}:{request_id!r}"
            call = calling("echo__wait", request_id, id=text, seconds=0.1)
            answer = client.post(call, Mcp_Session_Id=session)
            assert answer.json["id"] == request_id
            received.append(answer.text)
        return received

    with ThreadPoolExecutor(len(TENANTS)) as pool:
        for number, received in enumerate(pool.map(tenant, range(len(TENANTS)))):
            assert received == [f"{number}:1", f"{number}:'1'", f"{number}:2"]


def await_list_changes(stream: Events, condition: Callable[[], bool]) -> None:
    """Wait for list changes until the condition holds; an announced change is visible."""
    while not condition():
        stream.until("notifications/tools/list_changed")


# -- a session's stream ----------------------------------------------------------------------------


def test_a_sessions_stream_announces_a_new_server(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        assert (stream.status, stream.type) == (200, "text/event-stream")
        deployment.cluster.declare(deployment.configuration(more=Server(url=deployment.echo.url)))
        try:
            result = stream.until("notifications/tools/list_changed")
            assert "id" not in result
            assert "_meta" not in result.get("params", {})
            await_list_changes(stream, lambda: "more__say" in client.tools())
        finally:
            deployment.cluster.declare(deployment.configuration())
        await_list_changes(stream, lambda: "more__say" not in client.tools())


def test_a_sessions_stream_ends_with_the_session(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        assert deployment.client(replica=1).delete(Mcp_Session_Id=session).status == 204
        assert stream.ended()


def test_a_stream_ends_with_its_key_and_announces_reduced_grants_before(
    deployment: FamilyGateway,
) -> None:
    secret = "tbk_brief_a-secret-that-will-be-revoked"
    client = deployment.client(secret)
    deployment.cluster.put_key("brief", key(secret, "echo__*"))
    until_blocking(lambda: client.request("ping").status == 200, "the new key works")
    with Events(client, Mcp_Session_Id=start_session(client)) as stream:
        deployment.cluster.put_key("brief", key(secret, "echo__say"))
        await_list_changes(stream, lambda: client.tools() == ["echo__say"])
        deployment.cluster.put_key("brief", key(secret, revoked=True))
        assert stream.ended()


def test_a_stream_needs_a_session_and_an_accept_header(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client)
    with Events(client) as stream:
        assert stream.status == 405
    with Events(client, Mcp_Session_Id=session, Accept="application/json") as stream:
        assert stream.status == 406
    with Events(client, Mcp_Session_Id="x") as stream:
        assert stream.status == 404


def test_a_changed_resource_is_announced_to_its_subscribed_session(
    deployment: FamilyGateway,
) -> None:
    client, watched = deployment.client(), "test://watched-resource"
    session = start_session(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        there = deployment.client(replica=1)
        assert (
            there.request("resources/subscribe", {"uri": watched}, Mcp_Session_Id=session).json[
                "result"
            ]
            == {}
        )
        # The replica that subscribed announces the subscription to the others before its next
        # message.
        there.call("fix__test_touch_watched_resource")
        assert stream.until("notifications/resources/updated")["params"]["uri"] == watched


# -- requests to the client ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    [
        {"action": "accept", "content": {"response": "Ada"}},
        {"action": "decline"},
        {"action": "cancel"},
    ],
)
def test_a_server_request_is_sent_on_the_stream_and_answered_at_any_replica(
    deployment: FamilyGateway, response: dict[str, Any]
) -> None:
    client, there = deployment.client(), deployment.client(replica=1)
    session = start_session(client, {"elicitation": {}})
    call = calling("fix__test_elicitation", 5, message="Who?")
    with Events(client, call, Mcp_Session_Id=session) as stream:
        request = stream.until("elicitation/create")
        assert request["params"]["message"] == "Who?"
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": response}
        assert deployment.client(OTHER).post(answer, Mcp_Session_Id=session).status == 404
        assert there.post(answer, Mcp_Session_Id=session).status == 202
        last = stream.next()
        assert last["id"] == 5
        assert f"action={response['action']}" in json.dumps(last["result"])
        assert stream.ended()


def test_a_cancelled_call_waits_for_no_answer(deployment: FamilyGateway) -> None:
    client = deployment.client()
    session = start_session(client, {"elicitation": {}})
    call = calling("fix__test_elicitation", 5, message="Who?")
    with Events(client, call, Mcp_Session_Id=session) as stream:
        stream.until("elicitation/create")
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        about = {**cancelled, "params": {"requestId": 5}}
        assert deployment.client(replica=1).post(about, Mcp_Session_Id=session).status == 202
        assert stream.next()["error"]["data"]["code"] == "cancelled"
        assert stream.ended()
    again = client.post(calling("echo__say", 5, text="free"), Mcp_Session_Id=session)
    assert again.text == "free"


def test_a_client_that_declared_half_of_the_required_capabilities_gets_no_request(
    deployment: FamilyGateway,
) -> None:
    client = deployment.client()
    tool = "fix__test_input_required_result_multiple_inputs"
    session = start_session(client, {"elicitation": {}})
    answer = client.post(calling(tool, 5), Mcp_Session_Id=session)
    assert answer.headers["content-type"] == "application/json"
    assert "sampling" in answer.error["message"]


def test_a_client_without_capabilities_gets_no_request(deployment: FamilyGateway) -> None:
    client = deployment.client()
    answer = client.post(
        calling("fix__test_elicitation", 5, message="Who?"), Mcp_Session_Id=start_session(client)
    )
    assert answer.headers["content-type"] == "application/json"
    assert "elicitation" in answer.body.decode().lower()
    assert "error" in answer.json or answer.json["result"]["isError"]


# -- HTTP+SSE of 2024-11-05 ------------------------------------------------------------------------


def test_a_client_of_http_sse_posts_to_any_replica(deployment: FamilyGateway) -> None:
    client, there = deployment.client(), deployment.client(replica=1)
    with Events(client, path="/sse") as stream:
        where = stream.data()
        assert where.startswith("/sse/messages?session=")
        posts = Client(there.endpoint.removesuffix("/mcp") + where, ROOT)
        params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {}}
        assert posts.request("initialize", params).status == 202
        assert stream.next()["result"]["protocolVersion"] == "2024-11-05"
        assert posts.post(calling("echo__say", "x", text="old")).status == 202
        answer = stream.next()
        assert answer["id"] == "x"
        assert answer["result"]["content"][0]["text"] == "old"
        stolen = Client(posts.endpoint, OTHER).request("ping")
        assert stolen.status == 404
        odd = Client(f"{posts.endpoint.partition('=')[0]}=%E2%82%AC", ROOT).request("ping")
        assert odd.status == 404
