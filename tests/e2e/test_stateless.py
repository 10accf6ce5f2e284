"""The stateless family through real HTTP: subscriptions, sealed states and tasks, discovery."""

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
    place: FamilyGateway, request_id: int | str
) -> None:
    client, mark = place.client(), {META + "subscriptionId": request_id}
    with listening(client, request_id, toolsListChanged=True, odd=True) as stream:
        first = stream.next()
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"] == {"toolsListChanged": True}
        assert first["params"]["_meta"] == mark
        assert type(first["params"]["_meta"][META + "subscriptionId"]) is type(request_id)
        place.cluster.declare(place.configuration(more=Server(url=place.echo.url)))
        try:
            result = stream.next()
            assert result["method"] == "notifications/tools/list_changed", "only what was wanted"
            assert result["params"]["_meta"] == mark
            until_blocking(lambda: "more__say" in client.tools(), "the new server")
        finally:
            place.cluster.declare(place.configuration())
            # The next stream must begin without it, or would be told of no change.
            until_blocking(lambda: "more__say" not in client.tools(), "the server is gone")
        stream.until("notifications/tools/list_changed")


def test_a_subscription_tells_of_the_resources_it_named(place: FamilyGateway) -> None:
    watched = "test://watched-resource"
    wanted = [watched, "test://nobody-has-this", 5]
    with listening(place.client(), 1, resourceSubscriptions=wanted) as stream:
        acknowledged = stream.next()["params"]["notifications"]
        assert acknowledged["resourceSubscriptions"] == [watched]
        place.client().call("fix__test_touch_watched_resource")
        result = stream.until("notifications/resources/updated")
        assert result["params"]["uri"] == watched
        assert result["params"]["_meta"][META + "subscriptionId"] == 1


def test_a_subscription_ends_with_a_result_when_the_gateway_does(place: FamilyGateway) -> None:
    replica = place.cluster.run("ingress")
    replica.wait_ready()
    number = len(place.cluster._ports) - 1
    with listening(place.cluster.client(ROOT, number), "7", toolsListChanged=True) as stream:
        stream.next()
        assert replica.stop() == 0
        place.cluster.forget_port(number)
        while (last := stream.next()).get("id") != "7":
            pass
        assert last["result"]["resultType"] == "complete"
        assert last["result"]["_meta"] == {META + "subscriptionId": "7"}
        assert stream.ended()


def test_who_leaves_a_subscription_leaves_nothing_behind(place: FamilyGateway) -> None:
    for _ in range(3):
        with listening(place.client(), toolsListChanged=True) as stream:
            stream.next()
    assert place.client().call("echo__say", {"text": "still here"}).text == "still here"


def rounds(client: Client, params: dict[str, Any], **changed: Any) -> Answer:
    responses = {"confirm": {"action": "accept", "content": {"ok": True}}}
    return request(
        client, "tools/call", {**params, "inputResponses": responses, **changed}, **FORMS
    )


def test_a_state_is_sealed_to_its_key_and_its_request(place: FamilyGateway) -> None:
    params = {"name": ASK, "arguments": {}}
    first = request(place.client(), "tools/call", params, **FORMS).json["result"]
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


def test_what_is_told_to_be_there_answers(place: FamilyGateway) -> None:
    client = place.client()
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
    wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
    with listening(client, **wanted) as stream:
        assert stream.next()["params"]["notifications"] == wanted


def test_what_nobody_offers_is_not_told_to_be_there(place: FamilyGateway) -> None:
    client = place.client(PLAIN)
    assert request(client, "server/discover").json["result"]["capabilities"] == {
        "tools": {"listChanged": True}
    }
    assert request(client, "prompts/list").json["result"]["prompts"] == []
    assert request(client, "resources/list").json["result"]["resources"] == []


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "tasks/list"]
)
def test_what_the_era_removed_is_not_found(place: FamilyGateway, method: str) -> None:
    answer = request(place.client(), method, {"uri": "test://watched-resource"})
    assert answer.status in (400, 404)
    assert answer.error["code"] == (-32601 if answer.status == 404 else -32020)


def test_a_task_is_of_the_key_that_began_it_and_of_any_replica(place: FamilyGateway) -> None:
    tasks: dict[str, Any] = {"extensions": {META + "tasks": {}}}
    arguments = {"seconds": 0, "label": "sealed"}
    params = {"name": "fix__slow_compute", "arguments": arguments}
    begun_task = request(place.client(), "tools/call", params, **tasks).json["result"]
    assert begun_task["resultType"] == "task"
    task_id = begun_task["taskId"]

    def asked(client: Client, handle: str) -> Answer:
        body, headers = stateless("tasks/get", {"taskId": handle}, **tasks)
        return client.post(body, **headers, Mcp_Name=handle)

    there = place.client(replica=1)
    until_blocking(lambda: asked(there, task_id).json["result"]["status"] == "completed", "the end")
    done = asked(there, task_id).json["result"]
    assert done["taskId"] == task_id, "under the same handle"
    assert "sealed" in json.dumps(done["result"])
    for client, handle in ((place.client(OTHER), task_id), (there, task_id[:-1]), (there, "x")):
        assert asked(client, handle).error["code"] == -32602
    one_server = Client(f"{there.endpoint}/echo", ROOT)
    assert asked(one_server, task_id).error["code"] == -32602, "of another server"


def test_who_leaves_a_call_takes_it_back(place: FamilyGateway) -> None:
    params = {"name": "fix__test_sleep", "arguments": {"seconds": 7}}
    body, headers = stateless("tools/call", params)
    place.fixture.forget()
    with place.client().leaving(body, **headers):
        until_blocking(lambda: "test_sleep" in place.fixture.seen()["tools"], "the call arrived")
    until_blocking(lambda: "test_sleep" in place.fixture.seen()["cancelled"], "it was taken back")


def test_what_may_be_kept_and_by_whom_is_told(place: FamilyGateway) -> None:
    client = place.client()
    listed = request(client, "tools/list").json["result"]
    assert 0 <= listed["ttlMs"] <= 5000
    assert listed["cacheScope"] == "private"
    found = request(client, "server/discover").json["result"]
    assert (found["ttlMs"], found["cacheScope"]) == (0, "private"), "a stateless server is behind"
    about = {"uri": "test://static-text"}
    read = request(client, "resources/read", about).json["result"]
    assert (read["ttlMs"], read["cacheScope"]) == (60_000, "public"), "as its server says"
