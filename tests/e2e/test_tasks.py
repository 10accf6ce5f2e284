"""Tasks where the families of client and server differ, over real HTTP, and what they outlive."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.upstream import FixtureServer
from harness.clients.event_streams import Events
from harness.clients.mcp_client import Answer, Client
from harness.gateway.everything_gateway import Gateway
from harness.gateway.family_gateway import (
    ASK,
    META,
    OTHER,
    ROOT,
    FamilyGateway,
    calling,
    replicated,
    request,
    start_session,
    stateless,
)
from harness.waits import until_blocking
from toolbus_common.config import Server

TASKS: dict[str, Any] = {"extensions": {META + "tasks": {}}}
FORMS: dict[str, Any] = {"elicitation": {"form": {}}}
RELATED = META + "related-task"
YES = {"action": "accept", "content": {"confirm": True}}
SERVERS = ("fix", "old")
OVER = ("completed", "failed", "cancelled")
INVALID, NO_METHOD = -32602, -32601


@pytest.fixture(scope="module")
def both(place: FamilyGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyGateway]:
    """The same gateway over a server of either family: `fix` is stateless, `old` shakes hands."""
    old = FixtureServer(tmp_path_factory.mktemp("old"), "--family", "legacy")
    old.start()
    place.servers["old"] = Server(url=old.url)
    place.cluster.declare(place.configuration())
    place.until_listed("old__greet")
    yield place
    old.kill()


def started(place: FamilyGateway, tool: str, session: str = "", **arguments: Any) -> dict[str, Any]:
    """The task that a client with a session is given."""
    params = {"name": tool, "arguments": arguments, "task": {"ttl": 60_000}}
    headers = {"Mcp_Session_Id": session} if session else {}
    task: dict[str, Any] = (
        place.client().request("tools/call", params, **headers).json["result"]["task"]
    )
    return task


def stateless_task(client: Client, tool: str, arguments: Any, **more: Any) -> dict[str, Any]:
    """The task that a stateless client is given."""
    params = {"name": tool, "arguments": arguments}
    body: dict[str, Any] = request(client, "tools/call", params, **TASKS, **more).json["result"]
    assert body["resultType"] == "task"
    return body


def about(client: Client, method: str, task: str, more: Any = None, **declared: Any) -> Answer:
    """What a stateless client asks of its task."""
    params = {"taskId": task, **(more or {})}
    body, headers = stateless(method, params, **TASKS, **declared)
    return client.post(body, **headers, Mcp_Name=task)


def result_of(answer: Answer) -> Any:
    """Its result; fails with the error where there is none."""
    assert "result" in answer.json, answer.json
    return answer.json["result"]


def ended(look: Callable[[], Answer]) -> dict[str, Any]:
    """A task once it has ended."""
    until_blocking(lambda: result_of(look())["status"] in OVER, "the end")
    found: dict[str, Any] = result_of(look())
    return found


# -- clients with a session -----------------------------------------------------------------------


def test_tasks_are_declared_and_listed_to_clients_of_the_revision_that_has_them(
    both: FamilyGateway,
) -> None:
    client = both.client()
    for version, each in (("2025-11-25", True), ("2025-06-18", False)):
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {}}
        found = client.request("initialize", params).json["result"]["capabilities"]
        assert ("tasks" in found) is each
        if each:
            assert found["tasks"] == {"cancel": {}, "requests": {"tools": {"call": {}}}}
    tools = {t["name"]: t for t in client.request("tools/list").json["result"]["tools"]}
    assert tools["fix__slow_compute"]["execution"] == {"taskSupport": "optional"}
    assert "execution" not in tools["echo__say"]
    discovered = request(Client(f"{client.endpoint}/old", ROOT), "server/discover").json["result"]
    assert META + "tasks" in discovered["capabilities"]["extensions"]


@pytest.mark.parametrize("server", SERVERS)
def test_a_client_with_a_session_runs_a_task_of_either_family(
    both: FamilyGateway, server: str
) -> None:
    task = started(both, f"{server}__slow_compute", seconds=0.2, label="w")
    assert {"taskId", "status", "createdAt", "lastUpdatedAt", "ttl"} <= set(task)
    assert not {"ttlMs", "pollIntervalMs", "resultType"} & set(task)
    about_it, there = {"taskId": task["taskId"]}, both.client(replica=1)
    done = there.request("tasks/result", about_it).json["result"]
    assert done["content"][0]["text"] == "w done in 0.2 s"
    assert done["_meta"][RELATED] == about_it
    assert "resultType" not in done
    reply = there.request("tasks/get", about_it).json["result"]
    assert (reply["taskId"], reply["status"]) == (task["taskId"], "completed")
    assert not {"result", "resultType", "ttlMs"} & set(reply)
    assert both.client(OTHER).request("tasks/get", about_it).error["code"] == INVALID


def test_a_tool_that_reports_an_error_leaves_a_task_that_failed(both: FamilyGateway) -> None:
    about_it = {"taskId": started(both, "fix__failing_job")["taskId"]}
    done = both.client().request("tasks/result", about_it).json["result"]
    assert done["isError"]
    assert both.client().request("tasks/get", about_it).json["result"]["status"] == "failed"


def test_what_a_task_broke_with_is_what_its_result_is_refused_with(both: FamilyGateway) -> None:
    about_it = {"taskId": started(both, "fix__protocol_error_job")["taskId"]}
    assert both.client().request("tasks/result", about_it).error["message"] == "The job broke."


@pytest.mark.parametrize("server", SERVERS)
def test_a_client_with_a_session_cancels_its_task(both: FamilyGateway, server: str) -> None:
    about_it = {"taskId": started(both, f"{server}__slow_compute", seconds=60)["taskId"]}
    assert both.client(OTHER).request("tasks/cancel", about_it).error["code"] == INVALID
    reply = both.client().request("tasks/cancel", about_it).json["result"]
    assert reply["status"] == "cancelled"
    assert reply["taskId"] == about_it["taskId"]
    assert both.client().request("tasks/cancel", about_it).error["code"] == INVALID


@pytest.mark.parametrize("server", SERVERS)
def test_a_task_asks_a_client_with_a_session_while_it_waits(
    both: FamilyGateway, server: str
) -> None:
    client = both.client()
    session = start_session(client, FORMS)
    task = started(both, f"{server}__confirm_delete", session, filename="f")
    about_it = {"taskId": task["taskId"]}
    waiting = {"jsonrpc": "2.0", "id": 9, "method": "tasks/result", "params": about_it}
    with Events(client, waiting, Mcp_Session_Id=session) as stream:
        request = stream.until("elicitation/create")
        assert request["params"]["message"] == "Delete f?"
        assert request["params"]["_meta"][RELATED] == about_it
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": YES}
        assert both.client(replica=1).post(answer, Mcp_Session_Id=session).status == 202
        last = stream.next()
        assert last["id"] == 9
        assert last["result"]["content"][0]["text"] == "f is deleted"


def test_a_tool_that_insists_on_a_task_asks_a_client_that_knows_of_none(
    both: FamilyGateway,
) -> None:
    client = both.client()
    session = start_session(client, FORMS)
    with Events(client, calling("fix__confirm_job", 9), Mcp_Session_Id=session) as stream:
        request = stream.until("elicitation/create")
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": YES}
        assert both.client(replica=1).post(answer, Mcp_Session_Id=session).status == 202
        assert stream.next()["result"]["content"][0]["text"] == "agreed: True"


def test_a_server_that_answers_at_once_leaves_a_task_that_has_ended(both: FamilyGateway) -> None:
    both.fixture.forget()
    task = started(both, "fix__greet", name="Ada")
    assert task["status"] == "completed"
    about_it, there = {"taskId": task["taskId"]}, both.client(replica=1)
    assert there.request("tasks/get", about_it).json["result"] == task
    done = there.request("tasks/result", about_it).json["result"]
    assert done["content"][0]["text"] == "Hello, Ada!"
    assert done["_meta"][RELATED] == about_it
    assert there.request("tasks/cancel", about_it).error["code"] == INVALID
    assert both.client(OTHER).request("tasks/result", about_it).error["code"] == INVALID
    assert both.fixture.seen()["tools"] == {"greet": 1}


def test_a_result_too_large_for_a_handle_is_refused_with_what_to_do(both: FamilyGateway) -> None:
    params = {"name": "fix__greet", "arguments": {"name": "a" * 50_000}, "task": {}}
    error = both.client().request("tools/call", params).error
    assert (error["code"], "without 'task'" in error["message"]) == (INVALID, True)


def test_a_client_is_never_listed_the_tasks_of_strangers(both: FamilyGateway) -> None:
    started(both, "old__slow_compute", seconds=0)
    error = both.client(OTHER).request("tasks/list").error
    assert (error["code"], "which key" in error["message"]) == (NO_METHOD, True)


def test_a_task_of_another_shape_is_refused(both: FamilyGateway) -> None:
    params = {"name": "fix__greet", "arguments": {"name": "x"}, "task": True}
    assert both.client().request("tools/call", params).error["code"] == INVALID


# -- stateless clients ----------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_a_stateless_client_runs_a_task_of_either_family(both: FamilyGateway, server: str) -> None:
    client, there = both.client(), both.client(replica=1)
    task = stateless_task(client, f"{server}__slow_compute", {"seconds": 0.2, "label": "w"})
    assert {"taskId", "status", "createdAt", "lastUpdatedAt", "ttlMs"} <= set(task)
    assert not {"ttl", "pollInterval", "task"} & set(task)
    done = ended(lambda: about(there, "tasks/get", task["taskId"]))
    assert (done["taskId"], done["status"]) == (task["taskId"], "completed")
    assert done["resultType"] == "complete"
    assert done["result"]["content"][0]["text"] == "w done in 0.2 s"
    assert done["result"]["resultType"] == "complete"
    assert RELATED not in json.dumps(done)
    assert about(both.client(OTHER), "tasks/get", task["taskId"]).error["code"] == INVALID


@pytest.mark.parametrize("server", SERVERS)
def test_a_stateless_client_cancels_its_task(both: FamilyGateway, server: str) -> None:
    client = both.client()
    task = stateless_task(client, f"{server}__slow_compute", {"seconds": 60})["taskId"]
    for _ in range(2):  # of a task that has ended it is acknowledged too
        assert about(client, "tasks/cancel", task).json["result"]["resultType"] == "complete"
    assert ended(lambda: about(client, "tasks/get", task))["status"] == "cancelled"


@pytest.mark.parametrize("server", SERVERS)
def test_a_task_asks_a_stateless_client_when_it_looks(both: FamilyGateway, server: str) -> None:
    client = both.client()
    task = stateless_task(client, f"{server}__confirm_delete", {"filename": "f"}, **FORMS)
    look = partial(about, both.client(replica=1), "tasks/get", task["taskId"], **FORMS)
    asked_at_all = False

    def answered() -> bool:
        """Whether it has ended; every executor that is looked at asks, until one was answered."""
        nonlocal asked_at_all
        seen = result_of(look())
        if request := seen.get("inputRequests"):
            asked_at_all = True
            (only,) = request.values()
            assert only["params"]["message"] == "Delete f?"
            answers = {"inputResponses": dict.fromkeys(request, YES)}
            each = about(client, "tasks/update", task["taskId"], answers, **FORMS)
            assert each.json["result"]["resultType"] == "complete"
        return bool(seen["status"] in OVER)

    until_blocking(answered, "the end")
    assert asked_at_all
    assert ended(look)["result"]["content"][0]["text"] == "f is deleted"


def test_a_stateless_client_that_takes_no_tasks_is_given_none(both: FamilyGateway) -> None:
    params = {"name": "old__slow_compute", "arguments": {"seconds": 0}, "task": {}}
    assert "content" in request(both.client(), "tools/call", params).json["result"]


@pytest.mark.parametrize(("method", "status"), [("tasks/result", 404), ("tasks/update", 200)])
def test_a_method_of_the_other_eras_tasks_is_not_found(
    both: FamilyGateway, method: str, status: int
) -> None:
    if method == "tasks/result":
        answer = about(both.client(), method, "x")
    else:
        answer = both.client().request(method, {"taskId": "x"})
    assert (answer.status, answer.error["code"]) == (status, NO_METHOD)


# -- news of tasks --------------------------------------------------------------------------------


def test_a_stateless_client_is_told_of_its_task_under_its_handle(both: FamilyGateway) -> None:
    client, there = both.client(), both.client(replica=1)
    task = stateless_task(client, "fix__confirm_delete", {"filename": "f"}, **FORMS)["taskId"]
    older = stateless_task(client, "old__slow_compute", {"seconds": 60})["taskId"]
    wanted = {"notifications": {"taskIds": [task, older, "x"]}}
    body, headers = stateless("subscriptions/listen", wanted, 7, **TASKS)
    with (
        Events(there, body, **headers) as stream,
        Events(Client(there.endpoint, OTHER), body, **headers) as strangers,
    ):
        result = stream.until("notifications/subscriptions/acknowledged")
        assert result["params"]["notifications"] == {"taskIds": [task]}, "one server tells of none"
        result = strangers.until("notifications/subscriptions/acknowledged")
        assert result["params"]["notifications"] == {}
        look = partial(about, client, "tasks/get", task, **FORMS)
        request = until_blocking(lambda: result_of(look()).get("inputRequests"), "the question")
        answers = {"inputResponses": dict.fromkeys(request, YES)}
        about(client, "tasks/update", task, answers, **FORMS)
        while (result := stream.until("notifications/tasks")["params"])["status"] != "completed":
            pass
        assert result["taskId"] == task
        assert result["result"]["content"][0]["text"] == "f is deleted"
        assert result["_meta"] == {META + "subscriptionId": 7}


def test_a_session_is_told_of_its_own_tasks_only(both: FamilyGateway) -> None:
    """The server tells every session of every task."""
    client = both.client()
    session, other = start_session(client, FORMS), start_session(both.client(OTHER), FORMS)
    # Opens what is listened to; that it asks may be told only once the stream is there.
    before = started(both, "old__confirm_delete", session, filename="before")["taskId"]
    params = {"name": "old__slow_compute", "arguments": {"seconds": 60}, "task": {}}
    foreign = both.client(OTHER).request("tools/call", params, Mcp_Session_Id=other)
    with Events(both.client(replica=1), Mcp_Session_Id=session) as stream:
        task = started(both, "old__slow_compute", session, seconds=60)["taskId"]
        theirs = foreign.json["result"]["task"]["taskId"]
        both.client(OTHER).request("tasks/cancel", {"taskId": theirs}, Mcp_Session_Id=other)
        client.request("tasks/cancel", {"taskId": task}, Mcp_Session_Id=session)
        while (result := stream.until("notifications/tasks/status")["params"])["taskId"] == before:
            pass
        assert (result["taskId"], result["status"]) == (task, "cancelled")


# -- what handles outlive -------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_a_task_is_found_after_every_service_was_killed(tmp_path: Path, server: str) -> None:
    old = FixtureServer(tmp_path / "old", "--family", "legacy")
    old.start()
    with ExitStack() as final:
        final.callback(old.kill)
        place = final.enter_context(replicated(tmp_path, fused=False))
        place.servers["old"] = Server(url=old.url)
        place.cluster.declare(place.configuration())
        place.until_listed("old__slow_compute")
        task = started(place, f"{server}__slow_compute", seconds=0.1, label="w")["taskId"]
        kept = started(place, "fix__greet", name="Ada")["taskId"]
        flat = stateless_task(place.client(), f"{server}__slow_compute", {"seconds": 0.1})["taskId"]
        _restarted(place)
        client = place.client()
        place.until_listed("old__greet", ASK)
        done = until_blocking(
            lambda: client.request("tasks/result", {"taskId": task}).json.get("result"),
            "the result",
        )
        assert done["content"][0]["text"] == "w done in 0.1 s"
        done = client.request("tasks/result", {"taskId": kept}).json["result"]
        assert done["content"][0]["text"] == "Hello, Ada!"
        assert "done in" in json.dumps(ended(lambda: about(client, "tasks/get", flat))["result"])


def _restarted(place: FamilyGateway) -> None:
    """Kill ingress, policy and executor, and begin them anew."""
    cluster = place.cluster
    for name in ("ingress", "policy", "executor"):
        for process in cluster.processes.pop(name):
            process.kill()
    for _ in range(2):
        cluster.forget_port(0)
    for name in ("executor", "policy", "ingress"):
        cluster.run(name).wait_ready()


# -- a server of other hands ----------------------------------------------------------------------


@pytest.mark.parametrize("server", ["every", "web"])
def test_a_stateless_client_runs_the_tasks_of_server_everything(
    gateway: Gateway, server: str
) -> None:
    client = gateway.client()
    arguments = {"topic": "python", "ambiguous": True}
    tool = f"{server}__simulate-research-query"
    task = stateless_task(client, tool, arguments, **FORMS)["taskId"]
    look = partial(about, client, "tasks/get", task, **FORMS)
    request = until_blocking(lambda: result_of(look()).get("inputRequests"), "the question", 60)
    meant = {"action": "accept", "content": {"interpretation": "snake"}}
    answers = {"inputResponses": dict.fromkeys(request, meant)}
    about(client, "tasks/update", task, answers, **FORMS)
    done = until_blocking(lambda: result_of(look()).get("result"), "the end", 60)
    assert "python (snake)" in done["content"][0]["text"]
