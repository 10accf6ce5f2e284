"""Both eras through real HTTP: sessions, streams, questions, subscriptions and sealed states."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit

import pytest

from conformance.upstream import FixtureServer
from harness.client import JSON, Answer, Client
from harness.cluster import Cluster, Upstream
from harness.operating import key
from harness.streams import Events
from harness.waiting import until_now
from toolbus_common.declared import Declaration, Server

NOW = "2026-07-28"
META = "io.modelcontextprotocol/"
ROOT, OTHER = "tbk_root_a-secret-of-sessions", "tbk_other_another-secret-of-sessions"
PLAIN = "tbk_plain_a-secret-for-one-server"
TENANTS = [f"tbk_tenant{number}_a-secret-of-this-tenant" for number in range(50)]
ASK = "fix__test_input_required_result_request_state"
FORMS: dict[str, Any] = {"elicitation": {"form": {}}}


class Place:
    """A gateway, its upstreams, and what it is declared to be."""

    def __init__(self, cluster: Cluster, echo: Upstream, fixture: FixtureServer) -> None:
        self.cluster = cluster
        self.echo = echo
        self.fixture = fixture
        self.servers = {"echo": Server(url=echo.url), "fix": Server(url=fixture.url)}
        self.keys = {
            "root": key(ROOT),
            "other": key(OTHER),
            "plain": key(PLAIN, "echo__*"),
            **{f"tenant{number}": key(secret) for number, secret in enumerate(TENANTS)},
        }

    def declaration(self, **more: Server) -> Declaration:
        return Declaration(servers={**self.servers, **more}, keys=self.keys)

    def client(self, secret: str = ROOT, replica: int = 0) -> Client:
        """A client of a replica, where there are several."""
        return self.cluster.client(secret, 0 if self.cluster.fused else replica)

    def complete(self, replica: int) -> bool:
        """Whether a replica knows of everything there is."""
        return {ASK, "echo__say"} <= set(self.client(replica=replica).tools())


@pytest.fixture(scope="module", params=["apart", "fused"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Two replicas of every room where they are apart, one of each where they are fused."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    fixture = FixtureServer(tmp_path_factory.mktemp("fixture"))
    made = Place(Cluster(tmp_path_factory.mktemp("cluster")), echo, fixture)
    fused = request.param == "fused"
    try:
        echo.start()
        fixture.start()
        made.cluster.start(made.declaration(), fused=fused, replicas=1 if fused else 2)
        for replica in (0, 1):
            until_now(partial(made.complete, replica), "the tools")
        yield made
    finally:
        made.cluster.stop()
        fixture.kill()
        echo.kill()


def begun(client: Client, capabilities: Any = None, version: str = "2025-11-25") -> str:
    """The id of a new session."""
    info = {"name": "e2e", "version": "1"}
    params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": info}
    answer = client.ask("initialize", params)
    assert answer.json["result"]["protocolVersion"] == version
    return answer.headers["mcp-session-id"]


def calling(tool: str, request_id: Any, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


def stateless(
    method: str, params: dict[str, Any], request_id: Any = 1, **capabilities: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """A request of 2026-07-28, and its headers."""
    meta = {META + "protocolVersion": NOW, META + "clientCapabilities": capabilities}
    headers = {"MCP_Protocol_Version": NOW, "Mcp_Method": method}
    name = params.get("name") or params.get("uri")
    headers |= {"Mcp_Name": name} if name else {}
    told = {"jsonrpc": "2.0", "id": request_id, "method": method}
    return {**told, "params": {**params, "_meta": meta}}, headers


def ask(client: Client, method: str, params: Any = None, **capabilities: Any) -> Answer:
    body, headers = stateless(method, params or {}, **capabilities)
    return client.post(body, **headers)


def listening(client: Client, request_id: Any = 7, **wanted: Any) -> Events:
    """A subscription of 2026-07-28."""
    body, headers = stateless("subscriptions/listen", {"notifications": wanted}, request_id)
    return Events(client, body, **headers)


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_lives_from_initialize_to_delete(place: Place) -> None:
    client = place.client()
    session = begun(client)
    assert client.ask("tools/list", Mcp_Session_Id=session).status == 200
    assert client.delete(Mcp_Session_Id=session).status == 204
    answer = client.ask("tools/list", Mcp_Session_Id=session)
    assert (answer.status, answer.error["code"]) == (404, -32600)
    assert client.delete(Mcp_Session_Id=session).status == 404


def test_any_replica_serves_a_session_and_hears_of_its_end(place: Place) -> None:
    here, there = place.client(), place.client(replica=1)
    session = begun(here)
    assert there.post(calling("echo__say", 1, text="hi"), Mcp_Session_Id=session).text == "hi"
    assert there.delete(Mcp_Session_Id=session).status == 204
    until_now(lambda: here.ask("ping", Mcp_Session_Id=session).status == 404, "the end is heard")


def test_a_session_of_another_key_does_not_exist(place: Place) -> None:
    session = begun(place.client())
    other = place.client(OTHER)
    assert other.ask("tools/list", Mcp_Session_Id=session).status == 404
    assert other.delete(Mcp_Session_Id=session).status == 404
    assert place.client().ask("ping", Mcp_Session_Id=session).status == 200, "it lives on"


@pytest.mark.parametrize("session", ["x", "A" * 300, "=", "\xe4"])
def test_an_id_of_no_session_is_not_found(place: Place, session: str) -> None:
    assert place.client().ask("ping", Mcp_Session_Id=session).status == 404


def test_an_altered_session_id_is_not_found(place: Place) -> None:
    session = begun(place.client())
    for other in (session + "A", session[:-1], session + "=", f"!{session}", session.swapcase()):
        assert place.client().ask("ping", Mcp_Session_Id=other).status == 404


def test_an_id_under_way_is_refused_a_second_time_in_its_session_only(place: Place) -> None:
    client = place.client()
    session, another = begun(client), begun(client)
    waiting = calling("echo__wait", "same", id="twice", seconds=7)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, waiting, Mcp_Session_Id=session)
        until_now(lambda: any(call.get("id") == "twice" for call in place.echo.arrived()))
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


def test_fifty_tenants_with_the_same_ids_at_once_get_their_own_replies(place: Place) -> None:
    together = Barrier(len(TENANTS))

    def tenant(number: int) -> list[str]:
        client = place.client(TENANTS[number], number % 2)
        session = begun(client)
        together.wait(60)
        heard = []
        for request_id in (1, "1", 2):
            text = f"{number}:{request_id!r}"
            call = calling("echo__wait", request_id, id=text, seconds=0.1)
            answer = client.post(call, Mcp_Session_Id=session)
            assert answer.json["id"] == request_id
            heard.append(answer.text)
        return heard

    with ThreadPoolExecutor(len(TENANTS)) as pool:
        for number, heard in enumerate(pool.map(tenant, range(len(TENANTS)))):
            assert heard == [f"{number}:1", f"{number}:'1'", f"{number}:2"]


# -- a session's stream ----------------------------------------------------------------------------


def test_a_sessions_stream_tells_of_a_server_that_is_new(place: Place) -> None:
    client = place.client()
    session = begun(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        assert (stream.status, stream.type) == (200, "text/event-stream")
        place.cluster.declare(place.declaration(more=Server(url=place.echo.url)))
        try:
            told = stream.until("notifications/tools/list_changed")
            assert "id" not in told
            assert "_meta" not in told.get("params", {})
            assert "more__say" in client.tools()
        finally:
            place.cluster.declare(place.declaration())
        stream.until("notifications/tools/list_changed")
        assert "more__say" not in client.tools()


def test_a_sessions_stream_ends_with_the_session(place: Place) -> None:
    client = place.client()
    session = begun(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        assert place.client(replica=1).delete(Mcp_Session_Id=session).status == 204
        assert stream.ended()


def test_a_stream_ends_with_its_key_and_tells_of_narrower_grants_before(place: Place) -> None:
    secret = "tbk_brief_a-secret-that-will-be-revoked"
    client = place.client(secret)
    place.cluster.put_key("brief", key(secret, "echo__*"))
    until_now(lambda: client.ask("ping").status == 200, "the new key works")
    with Events(client, Mcp_Session_Id=begun(client)) as stream:
        place.cluster.put_key("brief", key(secret, "echo__say"))
        stream.until("notifications/tools/list_changed")
        assert client.tools() == ["echo__say"]
        place.cluster.put_key("brief", key(secret, revoked=True))
        assert stream.ended()


def test_a_stream_needs_a_session_and_an_accept(place: Place) -> None:
    client = place.client()
    session = begun(client)
    with Events(client) as stream:
        assert stream.status == 405
    with Events(client, Mcp_Session_Id=session, Accept="application/json") as stream:
        assert stream.status == 406
    with Events(client, Mcp_Session_Id="x") as stream:
        assert stream.status == 404


def test_a_changed_resource_is_told_to_the_session_that_watches_it(place: Place) -> None:
    client, watched = place.client(), "test://watched-resource"
    session = begun(client)
    with Events(client, Mcp_Session_Id=session) as stream:
        there = place.client(replica=1)
        assert (
            there.ask("resources/subscribe", {"uri": watched}, Mcp_Session_Id=session).json[
                "result"
            ]
            == {}
        )
        client.call("fix__test_touch_watched_resource")
        assert stream.until("notifications/resources/updated")["params"]["uri"] == watched


# -- questions to the client -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        {"action": "accept", "content": {"response": "Ada"}},
        {"action": "decline"},
        {"action": "cancel"},
    ],
)
def test_a_question_is_asked_on_the_stream_and_answered_at_any_replica(
    place: Place, told: dict[str, Any]
) -> None:
    client, there = place.client(), place.client(replica=1)
    session = begun(client, {"elicitation": {}})
    call = calling("fix__test_elicitation", 5, message="Who?")
    with Events(client, call, Mcp_Session_Id=session) as stream:
        asked = stream.until("elicitation/create")
        assert asked["params"]["message"] == "Who?"
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": told}
        assert place.client(OTHER).post(answer, Mcp_Session_Id=session).status == 404
        assert there.post(answer, Mcp_Session_Id=session).status == 202
        last = stream.next()
        assert last["id"] == 5
        assert f"action={told['action']}" in json.dumps(last["result"])
        assert stream.ended()


def test_a_call_taken_back_waits_for_no_answer(place: Place) -> None:
    client = place.client()
    session = begun(client, {"elicitation": {}})
    call = calling("fix__test_elicitation", 5, message="Who?")
    with Events(client, call, Mcp_Session_Id=session) as stream:
        stream.until("elicitation/create")
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        about = {**cancelled, "params": {"requestId": 5}}
        assert place.client(replica=1).post(about, Mcp_Session_Id=session).status == 202
        assert stream.next()["error"]["data"]["code"] == "cancelled"
        assert stream.ended()
    again = client.post(calling("echo__say", 5, text="free"), Mcp_Session_Id=session)
    assert again.text == "free"


def test_a_client_that_declared_half_of_what_is_asked_is_asked_none_of_it(place: Place) -> None:
    client = place.client()
    tool = "fix__test_input_required_result_multiple_inputs"
    session = begun(client, {"elicitation": {}})
    answer = client.post(calling(tool, 5), Mcp_Session_Id=session)
    assert answer.headers["content-type"] == "application/json"
    assert "sampling" in answer.error["message"]


def test_a_client_that_declared_nothing_is_asked_nothing(place: Place) -> None:
    client = place.client()
    answer = client.post(
        calling("fix__test_elicitation", 5, message="Who?"), Mcp_Session_Id=begun(client)
    )
    assert answer.headers["content-type"] == "application/json"
    assert "elicitation" in answer.body.decode().lower()
    assert "error" in answer.json or answer.json["result"]["isError"]


# -- 2026-07-28 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_id", [7, "7", "a b"])
def test_a_subscription_is_acknowledged_first_under_its_own_id(
    place: Place, request_id: int | str
) -> None:
    mark = {META + "subscriptionId": request_id}
    with listening(place.client(), request_id, toolsListChanged=True, odd=True) as stream:
        first = stream.next()
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"] == {"toolsListChanged": True}
        assert first["params"]["_meta"] == mark
        assert type(first["params"]["_meta"][META + "subscriptionId"]) is type(request_id)
        place.cluster.declare(place.declaration(more=Server(url=place.echo.url)))
        try:
            told = stream.next()
            assert told["method"] == "notifications/tools/list_changed", "only what was wanted"
            assert told["params"]["_meta"] == mark
        finally:
            place.cluster.declare(place.declaration())
        stream.until("notifications/tools/list_changed")


def test_a_subscription_tells_of_the_resources_it_named(place: Place) -> None:
    watched = "test://watched-resource"
    wanted = [watched, "test://nobody-has-this", 5]
    with listening(place.client(), 1, resourceSubscriptions=wanted) as stream:
        acknowledged = stream.next()["params"]["notifications"]
        assert acknowledged["resourceSubscriptions"] == [watched]
        place.client().call("fix__test_touch_watched_resource")
        told = stream.until("notifications/resources/updated")
        assert told["params"]["uri"] == watched
        assert told["params"]["_meta"][META + "subscriptionId"] == 1


def test_a_subscription_ends_with_a_result_when_the_gateway_does(place: Place) -> None:
    replica = place.cluster.run("ingress")
    replica.wait_ready()
    number = len(place.cluster._ports) - 1
    with listening(place.cluster.client(ROOT, number), "7", toolsListChanged=True) as stream:
        stream.next()
        assert replica.stop() == 0
        place.cluster.forget_port(number)
        last = stream.next()
        assert last["id"] == "7"
        assert last["result"]["resultType"] == "complete"
        assert last["result"]["_meta"] == {META + "subscriptionId": "7"}
        assert stream.ended()


def test_who_leaves_a_subscription_leaves_nothing_behind(place: Place) -> None:
    for _ in range(3):
        with listening(place.client(), toolsListChanged=True) as stream:
            stream.next()
    assert place.client().call("echo__say", {"text": "still here"}).text == "still here"


def rounds(client: Client, params: dict[str, Any], **changed: Any) -> Answer:
    responses = {"confirm": {"action": "accept", "content": {"ok": True}}}
    return ask(client, "tools/call", {**params, "inputResponses": responses, **changed}, **FORMS)


def test_a_state_is_sealed_to_its_key_and_its_request(place: Place) -> None:
    params = {"name": ASK, "arguments": {}}
    first = ask(place.client(), "tools/call", params, **FORMS).json["result"]
    assert first["resultType"] == "input_required"
    state = first["requestState"]
    for client, changed in (
        (place.client(), {"requestState": state[:-2] + ("AA" if state[-2:] != "AA" else "BB")}),
        (place.client(), {"requestState": state + "="}),
        (place.client(), {"requestState": ""}),
        (place.client(), {"requestState": {"a": 1}}),
        (place.client(), {"requestState": state, "arguments": {"other": 1}}),
        (place.client(), {"requestState": state, "name": "fix__test_simple_text"}),
        (place.client(OTHER), {"requestState": state}),
    ):
        answer = rounds(client, params, **changed)
        assert answer.error["code"] == -32602, changed
    last = rounds(place.client(replica=1), params, requestState=state)
    assert "state-ok" in last.text, "another replica opens it"


def test_what_is_told_to_be_there_answers(place: Place) -> None:
    client = place.client()
    told = ask(client, "server/discover").json["result"]["capabilities"]
    for kind, method in (
        ("tools", "tools/list"),
        ("prompts", "prompts/list"),
        ("resources", "resources/list"),
        ("resources", "resources/templates/list"),
    ):
        assert told[kind]["listChanged"] is True
        assert ask(client, method).json["result"]["resultType"] == "complete"
    ref = {"type": "ref/prompt", "name": "fix__test_prompt_with_arguments"}
    params = {"ref": ref, "argument": {"name": "arg1", "value": ""}}
    assert "completions" in told
    assert "completion" in ask(client, "completion/complete", params).json["result"]
    assert told["resources"]["subscribe"] is True
    wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
    with listening(client, **wanted) as stream:
        assert stream.next()["params"]["notifications"] == wanted


def test_what_nobody_offers_is_not_told_to_be_there(place: Place) -> None:
    client = place.client(PLAIN)
    assert ask(client, "server/discover").json["result"]["capabilities"] == {
        "tools": {"listChanged": True}
    }
    assert ask(client, "prompts/list").json["result"]["prompts"] == []
    assert ask(client, "resources/list").json["result"]["resources"] == []


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "tasks/list"]
)
def test_what_the_era_removed_is_not_found(place: Place, method: str) -> None:
    answer = ask(place.client(), method, {"uri": "test://watched-resource"})
    assert answer.status in (400, 404)
    assert answer.error["code"] == (-32601 if answer.status == 404 else -32020)


def test_a_task_is_of_the_key_that_began_it_and_of_any_replica(place: Place) -> None:
    tasks: dict[str, Any] = {"extensions": {META + "tasks": {}}}
    arguments = {"seconds": 0, "label": "sealed"}
    params = {"name": "fix__slow_compute", "arguments": arguments}
    begun_task = ask(place.client(), "tools/call", params, **tasks).json["result"]
    assert begun_task["resultType"] == "task"
    task_id = begun_task["taskId"]

    def asked(client: Client, handle: str) -> Answer:
        body, headers = stateless("tasks/get", {"taskId": handle}, **tasks)
        return client.post(body, **headers, Mcp_Name=handle)

    there = place.client(replica=1)
    until_now(lambda: asked(there, task_id).json["result"]["status"] == "completed", "the end")
    done = asked(there, task_id).json["result"]
    assert done["taskId"] == task_id, "under the same handle"
    assert "sealed" in json.dumps(done["result"])
    for client, handle in ((place.client(OTHER), task_id), (there, task_id[:-1]), (there, "x")):
        assert asked(client, handle).error["code"] == -32602
    one_server = Client(f"{there.endpoint}/echo", ROOT)
    assert asked(one_server, task_id).error["code"] == -32602, "of another server"


def test_who_leaves_a_call_takes_it_back(place: Place) -> None:
    params = {"name": "fix__test_sleep", "arguments": {"seconds": 7}}
    body, headers = stateless("tools/call", params)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    endpoint = urlsplit(place.client().endpoint)
    place.fixture.forget()
    with closing(HTTPConnection(endpoint.hostname or "", endpoint.port)) as connection:
        sent |= {**JSON, "Authorization": f"Bearer {ROOT}"}
        connection.request("POST", endpoint.path, json.dumps(body), sent)
        until_now(lambda: "test_sleep" in place.fixture.seen()["tools"], "the call arrived")
    until_now(lambda: "test_sleep" in place.fixture.seen()["cancelled"], "it was taken back")


# -- HTTP+SSE of 2024-11-05 ------------------------------------------------------------------------


def test_an_old_client_posts_beside_its_stream_at_any_replica(place: Place) -> None:
    client, there = place.client(), place.client(replica=1)
    with Events(client, path="/sse") as stream:
        where = stream.data()
        assert where.startswith("/sse/messages?session=")
        posts = Client(there.endpoint.removesuffix("/mcp") + where, ROOT)
        params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {}}
        assert posts.ask("initialize", params).status == 202
        assert stream.next()["result"]["protocolVersion"] == "2024-11-05"
        assert posts.post(calling("echo__say", "x", text="old")).status == 202
        answer = stream.next()
        assert answer["id"] == "x"
        assert answer["result"]["content"][0]["text"] == "old"
        stolen = Client(posts.endpoint, OTHER).ask("ping")
        assert stolen.status == 404
        odd = Client(f"{posts.endpoint.partition('=')[0]}=%E2%82%AC", ROOT).ask("ping")
        assert odd.status == 404
