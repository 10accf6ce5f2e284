"""Tasks between clients and servers of different families, over HTTP, and their durability."""

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
def families(
    deployment: FamilyGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FamilyGateway]:
    """Add a session-based server `old` to the gateway, whose server `fix` is stateless."""
    old = FixtureServer(tmp_path_factory.mktemp("old"), "--family", "legacy")
    old.start()
    deployment.servers["old"] = Server(url=old.url)
    deployment.cluster.declare(deployment.configuration())
    deployment.until_listed("old__greet")
    yield deployment
    old.kill()


def started(
    deployment: FamilyGateway, tool: str, session: str = "", **arguments: Any
) -> dict[str, Any]:
    """Return the task that a client with a session receives."""
    params = {"name": tool, "arguments": arguments, "task": {"ttl": 60_000}}
    headers = {"Mcp_Session_Id": session} if session else {}
    task: dict[str, Any] = (
        deployment.client().request("tools/call", params, **headers).json["result"]["task"]
    )
    return task


def stateless_task(client: Client, tool: str, arguments: Any, **more: Any) -> dict[str, Any]:
    """Return the task that a stateless client receives."""
    params = {"name": tool, "arguments": arguments}
    body: dict[str, Any] = request(client, "tools/call", params, **TASKS, **more).json["result"]
    assert body["resultType"] == "task"
    return body


def about(client: Client, method: str, task: str, more: Any = None, **declared: Any) -> Answer:
    """Send a request of a stateless client about its task."""
    params = {"taskId": task, **(more or {})}
    body, headers = stateless(method, params, **TASKS, **declared)
    return client.post(body, **headers, Mcp_Name=task)


def result_of(answer: Answer) -> Any:
    """Return the result, or fail with the error."""
    assert "result" in answer.json, answer.json
    return answer.json["result"]


def ended(look: Callable[[], Answer]) -> dict[str, Any]:
    """Return a task once it has ended."""
    until_blocking(lambda: result_of(look())["status"] in OVER, "the end")
    found: dict[str, Any] = result_of(look())
    return found


# -- clients with a session ------------------------------------------------------------------------


def test_tasks_are_declared_and_listed_only_to_revisions_that_have_them(
    families: FamilyGateway,
) -> None:
    client = families.client()
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
    families: FamilyGateway, server: str
) -> None:
    task = started(families, f"{server}__slow_compute", seconds=0.2, label="w")
    assert {"taskId", "status", "createdAt", "lastUpdatedAt", "ttl"} <= set(task)
    assert not {"ttlMs", "pollIntervalMs", "resultType"} & set(task)
    about_it, there = {"taskId": task["taskId"]}, families.client(replica=1)
    done = there.request("tasks/result", about_it).json["result"]
    assert done["content"][0]["text"] == "w done in 0.2 s"
    assert done["_meta"][RELATED] == about_it
    assert "resultType" not in done
    reply = there.request("tasks/get", about_it).json["result"]
    assert (reply["taskId"], reply["status"]) == (task["taskId"], "completed")
    assert not {"result", "resultType", "ttlMs"} & set(reply)
    assert families.client(OTHER).request("tasks/get", about_it).error["code"] == INVALID


def test_a_tool_error_leaves_a_failed_task(families: FamilyGateway) -> None:
    about_it = {"taskId": started(families, "fix__failing_job")["taskId"]}
    done = families.client().request("tasks/result", about_it).json["result"]
    assert done["isError"]
    assert families.client().request("tasks/get", about_it).json["result"]["status"] == "failed"


def test_the_error_of_a_failed_task_is_the_error_of_its_result(families: FamilyGateway) -> None:
    about_it = {"taskId": started(families, "fix__protocol_error_job")["taskId"]}
    assert families.client().request("tasks/result", about_it).error["message"] == "The job broke."


@pytest.mark.parametrize("server", SERVERS)
def test_a_client_with_a_session_cancels_its_task(families: FamilyGateway, server: str) -> None:
    about_it = {"taskId": started(families, f"{server}__slow_compute", seconds=60)["taskId"]}
    assert families.client(OTHER).request("tasks/cancel", about_it).error["code"] == INVALID
    reply = families.client().request("tasks/cancel", about_it).json["result"]
    assert reply["status"] == "cancelled"
    assert reply["taskId"] == about_it["taskId"]
    assert families.client().request("tasks/cancel", about_it).error["code"] == INVALID


@pytest.mark.parametrize("server", SERVERS)
def test_a_task_sends_a_request_to_a_client_with_a_session_that_waits_for_it(
    families: FamilyGateway, server: str
) -> None:
    client = families.client()
    session = start_session(client, FORMS)
    task = started(families, f"{server}__confirm_delete", session, filename="f")
    about_it = {"taskId": task["taskId"]}
    waiting = {"jsonrpc": "2.0", "id": 9, "method": "tasks/result", "params": about_it}
    with Events(client, waiting, Mcp_Session_Id=session) as stream:
        request = stream.until("elicitation/create")
        assert request["params"]["message"] == "Delete f?"
        assert request["params"]["_meta"][RELATED] == about_it
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": YES}
        assert families.client(replica=1).post(answer, Mcp_Session_Id=session).status == 202
        last = stream.next()
        assert last["id"] == 9
        assert last["result"]["content"][0]["text"] == "f is deleted"


def test_a_tool_that_requires_a_task_sends_its_request_to_a_client_without_tasks(
    families: FamilyGateway,
) -> None:
    client = families.client()
    session = start_session(client, FORMS)
    with Events(client, calling("fix__confirm_job", 9), Mcp_Session_Id=session) as stream:
        request = stream.until("elicitation/create")
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": YES}
        assert families.client(replica=1).post(answer, Mcp_Session_Id=session).status == 202
        assert stream.next()["result"]["content"][0]["text"] == "agreed: True"


def test_an_immediate_answer_leaves_a_completed_task(families: FamilyGateway) -> None:
    families.fixture.forget()
    task = started(families, "fix__greet", name="Ada")
    assert task["status"] == "completed"
    about_it, there = {"taskId": task["taskId"]}, families.client(replica=1)
    assert there.request("tasks/get", about_it).json["result"] == task
    done = there.request("tasks/result", about_it).json["result"]
    assert done["content"][0]["text"] == "Hello, Ada!"
    assert done["_meta"][RELATED] == about_it
    assert there.request("tasks/cancel", about_it).error["code"] == INVALID
    assert families.client(OTHER).request("tasks/result", about_it).error["code"] == INVALID
    assert families.fixture.seen()["tools"] == {"greet": 1}


def test_a_result_too_large_for_a_task_id_is_rejected_with_its_fix(families: FamilyGateway) -> None:
    params = {"name": "fix__greet", "arguments": {"name": "a" * 50_000}, "task": {}}
    error = families.client().request("tools/call", params).error
    assert (error["code"], "without 'task'" in error["message"]) == (INVALID, True)


def test_a_client_cannot_list_the_tasks_of_others(families: FamilyGateway) -> None:
    started(families, "old__slow_compute", seconds=0)
    error = families.client(OTHER).request("tasks/list").error
    assert (error["code"], "which key" in error["message"]) == (NO_METHOD, True)


def test_an_invalid_task_parameter_is_rejected(families: FamilyGateway) -> None:
    params = {"name": "fix__greet", "arguments": {"name": "x"}, "task": True}
    assert families.client().request("tools/call", params).error["code"] == INVALID


# -- stateless clients -----------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_a_stateless_client_runs_a_task_of_either_family(
    families: FamilyGateway, server: str
) -> None:
    client, there = families.client(), families.client(replica=1)
    task = stateless_task(client, f"{server}__slow_compute", {"seconds": 0.2, "label": "w"})
    assert {"taskId", "status", "createdAt", "lastUpdatedAt", "ttlMs"} <= set(task)
    assert not {"ttl", "pollInterval", "task"} & set(task)
    done = ended(lambda: about(there, "tasks/get", task["taskId"]))
    assert (done["taskId"], done["status"]) == (task["taskId"], "completed")
    assert done["resultType"] == "complete"
    assert done["result"]["content"][0]["text"] == "w done in 0.2 s"
    assert done["result"]["resultType"] == "complete"
    assert RELATED not in json.dumps(done)
    assert about(families.client(OTHER), "tasks/get", task["taskId"]).error["code"] == INVALID


@pytest.mark.parametrize("server", SERVERS)
def test_a_stateless_client_cancels_its_task(families: FamilyGateway, server: str) -> None:
    client = families.client()
    task = stateless_task(client, f"{server}__slow_compute", {"seconds": 60})["taskId"]
    for _ in range(2):  # cancelling an ended task is acknowledged too
        assert about(client, "tasks/cancel", task).json["result"]["resultType"] == "complete"
    assert ended(lambda: about(client, "tasks/get", task))["status"] == "cancelled"


@pytest.mark.parametrize("server", SERVERS)
def test_a_task_sends_a_request_to_a_stateless_client_that_reads_it(
    families: FamilyGateway, server: str
) -> None:
    client = families.client()
    task = stateless_task(client, f"{server}__confirm_delete", {"filename": "f"}, **FORMS)
    look = partial(about, families.client(replica=1), "tasks/get", task["taskId"], **FORMS)
    was_requested = False

    def answered() -> bool:
        """Return whether the task has ended; executors send the request until it is answered."""
        nonlocal was_requested
        current = result_of(look())
        if request := current.get("inputRequests"):
            was_requested = True
            (only,) = request.values()
            assert only["params"]["message"] == "Delete f?"
            answers = {"inputResponses": dict.fromkeys(request, YES)}
            each = about(client, "tasks/update", task["taskId"], answers, **FORMS)
            assert each.json["result"]["resultType"] == "complete"
        return bool(current["status"] in OVER)

    until_blocking(answered, "the end")
    assert was_requested
    assert ended(look)["result"]["content"][0]["text"] == "f is deleted"


def test_a_stateless_client_without_tasks_gets_a_plain_result(families: FamilyGateway) -> None:
    params = {"name": "old__slow_compute", "arguments": {"seconds": 0}, "task": {}}
    assert "content" in request(families.client(), "tools/call", params).json["result"]


@pytest.mark.parametrize(("method", "status"), [("tasks/result", 404), ("tasks/update", 200)])
def test_a_task_method_of_the_other_family_is_not_found(
    families: FamilyGateway, method: str, status: int
) -> None:
    if method == "tasks/result":
        answer = about(families.client(), method, "x")
    else:
        answer = families.client().request(method, {"taskId": "x"})
    assert (answer.status, answer.error["code"]) == (status, NO_METHOD)


# -- task notifications ----------------------------------------------------------------------------


def test_a_stateless_client_is_notified_of_its_task_under_its_id(families: FamilyGateway) -> None:
    client, there = families.client(), families.client(replica=1)
    task = stateless_task(client, "fix__confirm_delete", {"filename": "f"}, **FORMS)["taskId"]
    older = stateless_task(client, "old__slow_compute", {"seconds": 60})["taskId"]
    params = {"notifications": {"taskIds": [task, older, "x"]}}
    body, headers = stateless("subscriptions/listen", params, 7, **TASKS)
    with (
        Events(there, body, **headers) as stream,
        Events(Client(there.endpoint, OTHER), body, **headers) as strangers,
    ):
        result = stream.until("notifications/subscriptions/acknowledged")
        assert result["params"]["notifications"] == {"taskIds": [task]}, (
            "one server has no task notifications"
        )
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


def test_a_session_is_notified_of_its_own_tasks_only(families: FamilyGateway) -> None:
    """Use a server that notifies every session of every task."""
    client = families.client()
    session, other = start_session(client, FORMS), start_session(families.client(OTHER), FORMS)
    # Opens the subscription; a request of this task may arrive only once the stream exists.
    before = started(families, "old__confirm_delete", session, filename="before")["taskId"]
    params = {"name": "old__slow_compute", "arguments": {"seconds": 60}, "task": {}}
    foreign = families.client(OTHER).request("tools/call", params, Mcp_Session_Id=other)
    with Events(families.client(replica=1), Mcp_Session_Id=session) as stream:
        task = started(families, "old__slow_compute", session, seconds=60)["taskId"]
        theirs = foreign.json["result"]["task"]["taskId"]
        families.client(OTHER).request("tasks/cancel", {"taskId": theirs}, Mcp_Session_Id=other)
        client.request("tasks/cancel", {"taskId": task}, Mcp_Session_Id=session)
        while (result := stream.until("notifications/tasks/status")["params"])["taskId"] == before:
            pass
        assert (result["taskId"], result["status"]) == (task, "cancelled")


# -- durability of task ids ------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_a_task_is_found_after_every_service_was_killed(tmp_path: Path, server: str) -> None:
    old = FixtureServer(tmp_path / "old", "--family", "legacy")
    old.start()
    with ExitStack() as final:
        final.callback(old.kill)
        deployment = final.enter_context(replicated(tmp_path, fused=False))
        deployment.servers["old"] = Server(url=old.url)
        deployment.cluster.declare(deployment.configuration())
        deployment.until_listed("old__slow_compute")
        task = started(deployment, f"{server}__slow_compute", seconds=0.1, label="w")["taskId"]
        completed = started(deployment, "fix__greet", name="Ada")["taskId"]
        flat = stateless_task(deployment.client(), f"{server}__slow_compute", {"seconds": 0.1})[
            "taskId"
        ]
        _restarted(deployment)
        client = deployment.client()
        deployment.until_listed("old__greet", ASK)
        done = until_blocking(
            lambda: client.request("tasks/result", {"taskId": task}).json.get("result"),
            "the result",
        )
        assert done["content"][0]["text"] == "w done in 0.1 s"
        done = client.request("tasks/result", {"taskId": completed}).json["result"]
        assert done["content"][0]["text"] == "Hello, Ada!"
        assert "done in" in json.dumps(ended(lambda: about(client, "tasks/get", flat))["result"])


def _restarted(deployment: FamilyGateway) -> None:
    """Kill ingress, policy and executor, and start them again."""
    cluster = deployment.cluster
    for name in ("ingress", "policy", "executor"):
        for process in cluster.processes.pop(name):
            process.kill()
    for _ in range(2):
        cluster.forget_port(0)
    for name in ("executor", "policy", "ingress"):
        cluster.run(name).wait_ready()


# -- an independent server -------------------------------------------------------------------------


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
