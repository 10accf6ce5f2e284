"""The stateless family over HTTP: subscriptions, sealed states and tasks, discovery."""

import json
from typing import Any

import pytest

from harness.clients.mcp_client import Answer, Client
from harness.gateway.family_gateway import (
    ASK,
    META,
    OTHER,
    PLAIN,
    ROOT,
    FamilyGateway,
    listening,
    request,
    stateless,
)
from harness.waits import until_blocking
from toolbus_common.config import Server

FORMS: dict[str, Any] = {"elicitation": {"form": {}}}


@pytest.mark.parametrize("request_id", [7, "7", "a b"])
def test_a_subscription_is_acknowledged_first_under_its_own_id(
    deployment: FamilyGateway, request_id: int | str
) -> None:
    client, mark = deployment.client(), {META + "subscriptionId": request_id}
    with listening(client, request_id, toolsListChanged=True, odd=True) as stream:
        first = stream.next()
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"] == {"toolsListChanged": True}
        assert first["params"]["_meta"] == mark
        assert type(first["params"]["_meta"][META + "subscriptionId"]) is type(request_id)
        deployment.cluster.declare(deployment.configuration(more=Server(url=deployment.echo.url)))
        try:
            result = stream.next()
            assert result["method"] == "notifications/tools/list_changed", "only what was wanted"
            assert result["params"]["_meta"] == mark
            until_blocking(lambda: "more__say" in client.tools(), "the new server")
        finally:
            deployment.cluster.declare(deployment.configuration())
            # The next stream must start without it, or it would receive no change.
            until_blocking(lambda: "more__say" not in client.tools(), "the server is gone")
        stream.until("notifications/tools/list_changed")


def test_a_subscription_announces_changes_of_its_resources(deployment: FamilyGateway) -> None:
    watched = "test://watched-resource"
    subscriptions = [watched, "test://nobody-has-this", 5]
    with listening(deployment.client(), 1, resourceSubscriptions=subscriptions) as stream:
        acknowledged = stream.next()["params"]["notifications"]
        assert acknowledged["resourceSubscriptions"] == [watched]
        deployment.client().call("fix__test_touch_watched_resource")
        result = stream.until("notifications/resources/updated")
        assert result["params"]["uri"] == watched
        assert result["params"]["_meta"][META + "subscriptionId"] == 1


def test_a_subscription_ends_with_a_result_when_the_gateway_stops(
    deployment: FamilyGateway,
) -> None:
    replica = deployment.cluster.run("ingress")
    replica.wait_ready()
    number = len(deployment.cluster._ports) - 1
    with listening(deployment.cluster.client(ROOT, number), "7", toolsListChanged=True) as stream:
        stream.next()
        assert replica.stop() == 0
        deployment.cluster.forget_port(number)
        while (last := stream.next()).get("id") != "7":
            pass
        assert last["result"]["resultType"] == "complete"
        assert last["result"]["_meta"] == {META + "subscriptionId": "7"}
        assert stream.ended()


def test_a_client_that_disconnects_from_a_subscription_leaves_nothing_behind(
    deployment: FamilyGateway,
) -> None:
    for _ in range(3):
        with listening(deployment.client(), toolsListChanged=True) as stream:
            stream.next()
    assert deployment.client().call("echo__say", {"text": "still here"}).text == "still here"


def answer_request(client: Client, params: dict[str, Any], **changed: Any) -> Answer:
    responses = {"confirm": {"action": "accept", "content": {"ok": True}}}
    return request(
        client, "tools/call", {**params, "inputResponses": responses, **changed}, **FORMS
    )


def test_a_state_is_sealed_to_its_key_and_its_request(deployment: FamilyGateway) -> None:
    params = {"name": ASK, "arguments": {}}
    first = request(deployment.client(), "tools/call", params, **FORMS).json["result"]
    assert first["resultType"] == "input_required"
    state = first["requestState"]
    for client, changed in (
        (
            deployment.client(),
            {"requestState": state[:-2] + ("AA" if state[-2:] != "AA" else "BB")},
        ),
        (deployment.client(), {"requestState": state + "="}),
        (deployment.client(), {"requestState": ""}),
        (deployment.client(), {"requestState": {"a": 1}}),
        (deployment.client(), {"requestState": state, "arguments": {"other": 1}}),
        (deployment.client(), {"requestState": state, "name": "fix__test_simple_text"}),
        (deployment.client(OTHER), {"requestState": state}),
    ):
        answer = answer_request(client, params, **changed)
        assert answer.error["code"] == -32602, changed
    last = answer_request(deployment.client(replica=1), params, requestState=state)
    assert "state-ok" in last.text, "another replica accepts it"


def test_every_declared_capability_answers(deployment: FamilyGateway) -> None:
    client = deployment.client()
    body = request(client, "server/discover").json["result"]["capabilities"]
    for kind, method in (
        ("tools", "tools/list"),
        ("prompts", "prompts/list"),
        ("resources", "resources/list"),
        ("resources", "resources/templates/list"),
    ):
        assert body[kind]["listChanged"] is True
        assert request(client, method).json["result"]["resultType"] == "complete"
    ref = {"type": "ref/prompt", "name": "fix__test_prompt_with_arguments"}
    params = {"ref": ref, "argument": {"name": "arg1", "value": ""}}
    assert "completions" in body
    assert "completion" in request(client, "completion/complete", params).json["result"]
    assert body["resources"]["subscribe"] is True
    subscriptions = {
        "toolsListChanged": True,
        "promptsListChanged": True,
        "resourcesListChanged": True,
    }
    with listening(client, **subscriptions) as stream:
        assert stream.next()["params"]["notifications"] == subscriptions


def test_a_capability_of_no_server_is_not_declared(deployment: FamilyGateway) -> None:
    client = deployment.client(PLAIN)
    assert request(client, "server/discover").json["result"]["capabilities"] == {
        "tools": {"listChanged": True}
    }
    assert request(client, "prompts/list").json["result"]["prompts"] == []
    assert request(client, "resources/list").json["result"]["resources"] == []


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "tasks/list"]
)
def test_a_removed_method_is_not_found(deployment: FamilyGateway, method: str) -> None:
    answer = request(deployment.client(), method, {"uri": "test://watched-resource"})
    assert answer.status in (400, 404)
    assert answer.error["code"] == (-32601 if answer.status == 404 else -32020)


def test_a_task_belongs_to_its_key_and_is_known_to_every_replica(deployment: FamilyGateway) -> None:
    tasks: dict[str, Any] = {"extensions": {META + "tasks": {}}}
    arguments = {"seconds": 0, "label": "sealed"}
    params = {"name": "fix__slow_compute", "arguments": arguments}
    task = request(deployment.client(), "tools/call", params, **tasks).json["result"]
    assert task["resultType"] == "task"
    task_id = task["taskId"]

    def get_task(client: Client, handle: str) -> Answer:
        body, headers = stateless("tasks/get", {"taskId": handle}, **tasks)
        return client.post(body, **headers, Mcp_Name=handle)

    there = deployment.client(replica=1)
    until_blocking(
        lambda: get_task(there, task_id).json["result"]["status"] == "completed", "the end"
    )
    done = get_task(there, task_id).json["result"]
    assert done["taskId"] == task_id, "under the same handle"
    assert "sealed" in json.dumps(done["result"])
    for client, handle in (
        (deployment.client(OTHER), task_id),
        (there, task_id[:-1]),
        (there, "x"),
    ):
        assert get_task(client, handle).error["code"] == -32602
    one_server = Client(f"{there.endpoint}/echo", ROOT)
    assert get_task(one_server, task_id).error["code"] == -32602, "a task of another server"


def test_a_client_that_disconnects_cancels_its_call(deployment: FamilyGateway) -> None:
    params = {"name": "fix__test_sleep", "arguments": {"seconds": 7}}
    body, headers = stateless("tools/call", params)
    deployment.fixture.forget()
    with deployment.client().leaving(body, **headers):
        until_blocking(
            lambda: "test_sleep" in deployment.fixture.seen()["tools"], "the call arrived"
        )
    until_blocking(
        lambda: "test_sleep" in deployment.fixture.seen()["cancelled"], "the call was cancelled"
    )


def test_cacheable_answers_declare_lifetime_and_scope(deployment: FamilyGateway) -> None:
    client = deployment.client()
    listed = request(client, "tools/list").json["result"]
    assert 0 <= listed["ttlMs"] <= 5000
    assert listed["cacheScope"] == "private"
    found = request(client, "server/discover").json["result"]
    assert (found["ttlMs"], found["cacheScope"]) == (0, "private"), (
        "one of the servers is stateless"
    )
    about = {"uri": "test://static-text"}
    read = request(client, "resources/read", about).json["result"]
    assert (read["ttlMs"], read["cacheScope"]) == (60_000, "public"), "the values of its server"
