"""Approvals as tasks, over real HTTP and two replicas of every service, and what they outlive."""

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
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyGateway]:
    """A gateway of two replicas, one of whose tools needs a person."""
    with replicated(tmp_path_factory.mktemp("approved"), fused=False) as made:
        made.keys["root"] = key(ROOT, approve=[TOOL])
        made.keys["boss"] = key(BOSS, rights=["approve"])
        made.cluster.declare(made.configuration())
        until_blocking(made.cluster.up_to_date, "every replica knows what needs a person")
        yield made


def waiting(place: FamilyGateway, name: str, **declared: Any) -> dict[str, Any]:
    """The task that a stateless client is given."""
    params = {"name": TOOL, "arguments": {"name": name}}
    body: dict[str, Any] = request(place.client(), "tools/call", params, **TASKS, **declared).json
    assert body["result"]["resultType"] == "task", body
    return dict(body["result"])


def about(
    place: FamilyGateway, task: str, what: str = "get", secret: str = ROOT, **more: Any
) -> Answer:
    """What a stateless client asks of its task, at the other replica."""
    body, headers = stateless(f"tasks/{what}", {"taskId": task, **more}, **TASKS)
    return place.client(secret, replica=1).post(body, **headers, Mcp_Name=task)


def ended(place: FamilyGateway, task: str) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        found: dict[str, Any] = about(place, task).json.get("result", {})
        return found if found.get("status") in OVER else None

    return dict(until_blocking(over, "the end of the task", 60))


def api(place: FamilyGateway, path: str = "", body: Any = None, replica: int = 1) -> Answer:
    base = place.client(replica=replica).endpoint.removesuffix("/mcp")
    client = Client(f"{base}/api/approvals{path}", BOSS)
    return client.get(client.endpoint) if body is None else client.post(body)


def approval_of(place: FamilyGateway, name: str) -> str:
    """The approval a call waits for, as who decides sees it."""

    def found() -> Any:
        body = api(place).json.get("approvals", ())
        return [each["id"] for each in body if json.loads(each["arguments"]) == {"name": name}]

    (only,) = until_blocking(found, "the approval")
    return str(only)


def decided(place: FamilyGateway, name: str, action: str, **body: str) -> None:
    answer = api(place, f"/{approval_of(place, name)}/{action}", body)
    assert answer.status == 200, answer.body


def times(place: FamilyGateway) -> int:
    """How often the server was asked to greet."""
    found: dict[str, int] = place.fixture.seen()["tools"]
    return found.get("greet", 0)


def test_a_call_waits_as_a_task_at_every_replica_and_is_made_once(place: FamilyGateway) -> None:
    place.fixture.forget()
    task = waiting(place, "Ada")
    approval = approval_of(place, "Ada")
    assert f"/approvals/{approval}" in task["statusMessage"]
    assert approval not in task["taskId"], "sealed"
    assert about(place, task["taskId"]).json["result"]["status"] == "working"
    assert about(place, task["taskId"], secret=OTHER).error["code"] == INVALID
    assert times(place) == 0
    decided(place, "Ada", "approve")
    done = ended(place, task["taskId"])
    assert (done["taskId"], done["status"]) == (task["taskId"], "completed")
    assert done["result"]["content"][0]["text"] == "Hello, Ada!"
    assert ended(place, task["taskId"]) == done
    assert times(place) == 1


def test_a_rejected_task_fails_with_the_protocols_code_and_the_reason(place: FamilyGateway) -> None:
    task = waiting(place, "Eve")["taskId"]
    decided(place, "Eve", "reject", reason="Not her.")
    done = ended(place, task)
    assert (done["status"], done["error"]["code"]) == ("failed", REJECTED)
    assert "Not her." in done["error"]["message"]
    assert done["error"]["data"]["code"] == "approval_rejected"


def test_a_client_with_a_session_that_asks_for_a_task_is_given_one(place: FamilyGateway) -> None:
    params = {"name": TOOL, "arguments": {"name": "Hugo"}, "task": {"ttl": 60_000}}
    task = place.client().request("tools/call", params).json["result"]["task"]
    assert (task["status"], "/approvals/" in task["statusMessage"]) == ("working", True)
    about_it, there = {"taskId": task["taskId"]}, place.client(replica=1)
    assert there.request("tasks/get", about_it).json["result"]["status"] == "working"
    decided(place, "Hugo", "approve")
    done = there.request("tasks/result", about_it).json["result"]
    assert done["content"][0]["text"] == "Hello, Hugo!"
    assert done["_meta"][META + "related-task"] == about_it
    assert there.request("tasks/get", about_it).json["result"]["status"] == "completed"
    params["arguments"] = {"name": "Ida"}
    about_it = {
        "taskId": place.client().request("tools/call", params).json["result"]["task"]["taskId"]
    }
    decided(place, "Ida", "reject", reason="Not her.")
    error = there.request("tasks/result", about_it).error
    assert (error["code"], "Not her." in error["message"]) == (REJECTED, True)


def test_a_cancelled_task_takes_its_approval_back(place: FamilyGateway) -> None:
    task = waiting(place, "Bob")["taskId"]
    approval = approval_of(place, "Bob")
    assert about(place, task, "cancel", OTHER).error["code"] == INVALID
    assert about(place, task, "cancel").json["result"]["resultType"] == "complete"
    assert ended(place, task)["status"] == "cancelled"
    assert api(place, f"/{approval}/approve", {}).status == 404


def test_a_client_that_opens_pages_too_answers_its_task(place: FamilyGateway) -> None:
    task = waiting(place, "Cleo", **PAGES)
    assert task["status"] == "input_required"
    request = about(place, task["taskId"]).json["result"]["inputRequests"]
    (question,) = request.values()
    assert approval_of(place, "Cleo") in question["params"]["url"]
    answers = {name: {"action": "accept"} for name in request}
    about(place, task["taskId"], "update", inputResponses=answers)
    decided(place, "Cleo", "approve")
    assert ended(place, task["taskId"])["result"]["content"][0]["text"] == "Hello, Cleo!"


def test_a_tasks_call_is_in_the_audit_under_its_approval(place: FamilyGateway) -> None:
    task = waiting(place, "Dora")["taskId"]
    approval = approval_of(place, "Dora")
    decided(place, "Dora", "approve")
    ended(place, task)
    wanted = ("approval.requested", "approval.granted", "approval.used", "call.allowed")
    for event in wanted:
        sql = f"SELECT key FROM events WHERE approval = '{approval}' AND event = '{event}'"
        assert place.cluster.eventual_rows(sql)[0]["key"] == "root"


def test_a_replica_killed_as_a_person_approves_leaves_no_call_made_twice(
    place: FamilyGateway,
) -> None:
    place.fixture.forget()
    task = waiting(place, "Finn")["taskId"]
    decided(place, "Finn", "approve")
    place.cluster.processes["policy"].pop().kill()
    done = ended(place, task)
    assert times(place) <= 1
    if done["status"] == "completed":
        assert times(place) == 1
    else:
        assert done["error"]["data"]["code"] == "outcome_unknown"
    place.cluster.run("policy").wait_ready()


def test_a_task_outlives_every_service_killed_while_a_person_thinks(place: FamilyGateway) -> None:
    place.fixture.forget()
    task = waiting(place, "Jane")["taskId"]
    approval_of(place, "Jane")
    _killed_and_begun_anew(place)
    until_blocking(partial(_serves, place), "the services", 60)
    assert about(place, task).json["result"]["status"] == "working"
    decided(place, "Jane", "approve")
    assert ended(place, task)["result"]["content"][0]["text"] == "Hello, Jane!"
    assert times(place) == 1


def _killed_and_begun_anew(place: FamilyGateway) -> None:
    services, cluster = ("ingress", "policy", "executor"), place.cluster
    for service in services:
        for process in cluster.processes.pop(service):
            process.kill()
    for _ in range(2):
        cluster.forget_port(0)
    for process in [cluster.run(service) for service in services for _ in range(2)]:
        process.wait_ready()


def _serves(place: FamilyGateway) -> bool:
    """Whether a call goes through to the server, whichever replicas take it."""
    answers = [
        place.client(replica=n % 2).call("fix__test_echo", {"text": "here"}) for n in range(8)
    ]
    return all("result" in answer.json for answer in answers)
