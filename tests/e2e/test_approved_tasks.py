"""Approvals as tasks over HTTP, with two replicas of every service, and their durability."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Answer, Client
from harness.gateway.family_gateway import (
    META,
    OTHER,
    ROOT,
    FamilyGateway,
    replicated,
    request,
    stateless,
)
from harness.waits import until_blocking

TASKS: dict[str, Any] = {"extensions": {META + "tasks": {}}}
PAGES: dict[str, Any] = {"elicitation": {"url": {}}}
BOSS = "tbk_boss_a-secret-of-who-approves"
TOOL = "fix__greet"
INVALID, REJECTED = -32602, -31006
OVER = ("completed", "failed", "cancelled")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyGateway]:
    """Run two replicas with a tool that needs an approval."""
    with replicated(tmp_path_factory.mktemp("approved"), fused=False) as deployment:
        deployment.keys["root"] = key(ROOT, approve=[TOOL])
        deployment.keys["boss"] = key(BOSS, rights=["approve"])
        deployment.cluster.declare(deployment.configuration())
        until_blocking(deployment.cluster.up_to_date, "every replica knows what needs a person")
        yield deployment


def waiting(deployment: FamilyGateway, name: str, **declared: Any) -> dict[str, Any]:
    """Return the task that a stateless client receives for its call."""
    params = {"name": TOOL, "arguments": {"name": name}}
    body: dict[str, Any] = request(
        deployment.client(), "tools/call", params, **TASKS, **declared
    ).json
    assert body["result"]["resultType"] == "task", body
    return dict(body["result"])


def about(
    deployment: FamilyGateway, task: str, what: str = "get", secret: str = ROOT, **more: Any
) -> Answer:
    """Send a request of a stateless client about its task to the other replica."""
    body, headers = stateless(f"tasks/{what}", {"taskId": task, **more}, **TASKS)
    return deployment.client(secret, replica=1).post(body, **headers, Mcp_Name=task)


def ended(deployment: FamilyGateway, task: str) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        current: dict[str, Any] = about(deployment, task).json.get("result", {})
        return current if current.get("status") in OVER else None

    return dict(until_blocking(over, "the end of the task", 60))


def api(deployment: FamilyGateway, path: str = "", body: Any = None, replica: int = 1) -> Answer:
    base = deployment.client(replica=replica).endpoint.removesuffix("/mcp")
    client = Client(f"{base}/api/approvals{path}", BOSS)
    return client.get(client.endpoint) if body is None else client.post(body)


def approval_of(deployment: FamilyGateway, name: str) -> str:
    """Return the id of the approval a call waits for, from the API."""

    def approvals() -> Any:
        body = api(deployment).json.get("approvals", ())
        return [each["id"] for each in body if json.loads(each["arguments"]) == {"name": name}]

    (only,) = until_blocking(approvals, "the approval")
    return str(only)


def decided(deployment: FamilyGateway, name: str, action: str, **body: str) -> None:
    answer = api(deployment, f"/{approval_of(deployment, name)}/{action}", body)
    assert answer.status == 200, answer.body


def times(deployment: FamilyGateway) -> int:
    """Return the number of calls of `greet` that reached the server."""
    counts: dict[str, int] = deployment.fixture.seen()["tools"]
    return counts.get("greet", 0)


def test_a_call_waits_as_a_task_at_every_replica_and_runs_once(deployment: FamilyGateway) -> None:
    deployment.fixture.forget()
    task = waiting(deployment, "Ada")
    approval = approval_of(deployment, "Ada")
    assert f"/approvals/{approval}" in task["statusMessage"]
    assert approval not in task["taskId"], "the task id does not reveal it"
    assert about(deployment, task["taskId"]).json["result"]["status"] == "working"
    assert about(deployment, task["taskId"], secret=OTHER).error["code"] == INVALID
    assert times(deployment) == 0
    decided(deployment, "Ada", "approve")
    done = ended(deployment, task["taskId"])
    assert (done["taskId"], done["status"]) == (task["taskId"], "completed")
    assert done["result"]["content"][0]["text"] == "Hello, Ada!"
    assert ended(deployment, task["taskId"]) == done
    assert times(deployment) == 1


def test_a_rejected_task_fails_with_the_protocols_code_and_the_reason(
    deployment: FamilyGateway,
) -> None:
    task = waiting(deployment, "Eve")["taskId"]
    decided(deployment, "Eve", "reject", reason="Not her.")
    done = ended(deployment, task)
    assert (done["status"], done["error"]["code"]) == ("failed", REJECTED)
    assert "Not her." in done["error"]["message"]
    assert done["error"]["data"]["code"] == "approval_rejected"


def test_a_client_with_a_session_that_requests_a_task_receives_one(
    deployment: FamilyGateway,
) -> None:
    params = {"name": TOOL, "arguments": {"name": "Hugo"}, "task": {"ttl": 60_000}}
    task = deployment.client().request("tools/call", params).json["result"]["task"]
    assert (task["status"], "/approvals/" in task["statusMessage"]) == ("working", True)
    about_it, there = {"taskId": task["taskId"]}, deployment.client(replica=1)
    assert there.request("tasks/get", about_it).json["result"]["status"] == "working"
    decided(deployment, "Hugo", "approve")
    done = there.request("tasks/result", about_it).json["result"]
    assert done["content"][0]["text"] == "Hello, Hugo!"
    assert done["_meta"][META + "related-task"] == about_it
    assert there.request("tasks/get", about_it).json["result"]["status"] == "completed"
    params["arguments"] = {"name": "Ida"}
    about_it = {
        "taskId": deployment.client().request("tools/call", params).json["result"]["task"]["taskId"]
    }
    decided(deployment, "Ida", "reject", reason="Not her.")
    error = there.request("tasks/result", about_it).error
    assert (error["code"], "Not her." in error["message"]) == (REJECTED, True)


def test_cancelling_a_task_withdraws_its_approval(deployment: FamilyGateway) -> None:
    task = waiting(deployment, "Bob")["taskId"]
    approval = approval_of(deployment, "Bob")
    assert about(deployment, task, "cancel", OTHER).error["code"] == INVALID
    assert about(deployment, task, "cancel").json["result"]["resultType"] == "complete"
    assert ended(deployment, task)["status"] == "cancelled"
    assert api(deployment, f"/{approval}/approve", {}).status == 404


def test_a_client_that_opens_pages_answers_its_task(deployment: FamilyGateway) -> None:
    task = waiting(deployment, "Cleo", **PAGES)
    assert task["status"] == "input_required"
    request = about(deployment, task["taskId"]).json["result"]["inputRequests"]
    (question,) = request.values()
    assert approval_of(deployment, "Cleo") in question["params"]["url"]
    answers = {name: {"action": "accept"} for name in request}
    about(deployment, task["taskId"], "update", inputResponses=answers)
    decided(deployment, "Cleo", "approve")
    assert ended(deployment, task["taskId"])["result"]["content"][0]["text"] == "Hello, Cleo!"


def test_the_events_of_a_tasks_call_name_its_approval(deployment: FamilyGateway) -> None:
    task = waiting(deployment, "Dora")["taskId"]
    approval = approval_of(deployment, "Dora")
    decided(deployment, "Dora", "approve")
    ended(deployment, task)
    events = ("approval.requested", "approval.granted", "approval.used", "call.allowed")
    for event in events:
        sql = f"SELECT key FROM events WHERE approval = '{approval}' AND event = '{event}'"
        assert deployment.cluster.eventual_rows(sql)[0]["key"] == "root"


def test_a_replica_killed_during_an_approval_does_not_repeat_the_call(
    deployment: FamilyGateway,
) -> None:
    deployment.fixture.forget()
    task = waiting(deployment, "Finn")["taskId"]
    decided(deployment, "Finn", "approve")
    deployment.cluster.processes["policy"].pop().kill()
    done = ended(deployment, task)
    assert times(deployment) <= 1
    if done["status"] == "completed":
        assert times(deployment) == 1
    else:
        assert done["error"]["data"]["code"] == "outcome_unknown"
    deployment.cluster.run("policy").wait_ready()


def test_a_task_survives_the_death_of_every_service_before_the_decision(
    deployment: FamilyGateway,
) -> None:
    deployment.fixture.forget()
    task = waiting(deployment, "Jane")["taskId"]
    approval_of(deployment, "Jane")
    _kill_and_restart(deployment)
    until_blocking(partial(_serves, deployment), "the services", 60)
    assert about(deployment, task).json["result"]["status"] == "working"
    decided(deployment, "Jane", "approve")
    assert ended(deployment, task)["result"]["content"][0]["text"] == "Hello, Jane!"
    assert times(deployment) == 1


def _kill_and_restart(deployment: FamilyGateway) -> None:
    services, cluster = ("ingress", "policy", "executor"), deployment.cluster
    for service in services:
        for process in cluster.processes.pop(service):
            process.kill()
    for _ in range(2):
        cluster.forget_port(0)
    for process in [cluster.run(service) for service in services for _ in range(2)]:
        process.wait_ready()


def _serves(deployment: FamilyGateway) -> bool:
    """Return whether calls reach the server through every replica."""
    answers = [
        deployment.client(replica=n % 2).call("fix__test_echo", {"text": "here"}) for n in range(8)
    ]
    return all("result" in answer.json for answer in answers)
