"""Who may use what, through HTTP: groups, users, denials, narrowing, and explicit execution."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import pytest

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Answer, Client
from harness.gateway.cluster import Cluster, Upstream
from toolbus_common.config import Configuration, Server

ROOT, MEMBER, PERSON = (f"tbk_{name}_a-secret-of-governance" for name in ("root", "member", "ann"))


@pytest.fixture(scope="module", params=["separate", "fused"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A gateway with two servers and keys of a team and of a person."""
    upstream = Upstream(tmp_path_factory.mktemp("upstream"))
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        upstream.start()
        server = Server(url=upstream.url)
        made.start(configuration(one=server, two=server), fused=request.param == "fused")
        made.until_listed(made.client(ROOT), "one__say", "two__say")
        yield made
    finally:
        made.stop()
        upstream.kill()


def configuration(**servers: Server) -> Configuration:
    return Configuration.model_validate(
        {
            "servers": servers,
            "groups": {"sayers": {"tools": ["*__say"]}, "quiet": {"deny": ["two__*"]}},
            "customers": {"acme": {"groups": ["quiet"]}},
            "teams": {"ops": {"groups": ["sayers"]}},
            "users": {"ann": {"customer": "acme"}},
            "keys": {
                "root": key(ROOT, auto_execute=["one__say"]),
                "member": key(MEMBER, team="ops", deny=["two__say"]),
                "ann": key(PERSON, user="ann"),
            },
        }
    )


def tools(client: Client, **headers: str) -> set[str]:
    answer = client.request("tools/list", {}, **headers)
    return {tool["name"] for tool in answer.json["result"]["tools"]}


def called(client: Client, tool: str, **headers: str) -> str:
    """Toolbus' word for how a call was refused; empty when it was not."""
    params = {"name": tool, "arguments": {"text": "x"}}
    return client.request("tools/call", params, **headers).code


def test_a_group_of_a_team_bounds_its_keys_and_a_denial_wins(cluster: Cluster) -> None:
    member = cluster.client(MEMBER)
    assert tools(member) == {"one__say"}
    assert called(member, "one__say") == ""
    assert called(member, "two__say") == "unknown_tool", "denied"
    assert called(member, "one__count") == "unknown_tool", "not of the group"


def test_what_a_customer_denies_no_person_of_it_uses(cluster: Cluster) -> None:
    person = cluster.client(PERSON)
    assert {name.partition("__")[0] for name in tools(person)} == {"one"}
    assert called(person, "one__say") == ""
    assert called(person, "two__say") == "unknown_tool"


def test_a_request_narrows_itself_and_never_widens(cluster: Cluster) -> None:
    root, member = cluster.client(ROOT), cluster.client(MEMBER)
    assert tools(root, x_toolbus_servers="two", x_toolbus_tools="*__say") == {"two__say"}
    assert tools(root, x_toolbus_tools="") == set()
    assert tools(member, x_toolbus_tools="*") == {"one__say"}
    assert called(root, "one__say", x_toolbus_servers="two") == "unknown_tool"
    assert called(root, "two__say", x_toolbus_servers="two") == ""
    assert called(member, "two__say", x_toolbus_tools="two__say") == "unknown_tool"


def test_a_narrowing_header_beyond_any_sense_is_refused(cluster: Cluster) -> None:
    many = ",".join(["a"] * 65)
    assert cluster.client(ROOT).request("tools/list", x_toolbus_tools=many).code == "invalid"


# -- explicit execution ----------------------------------------------------------------------


def execute(client: Client, body: Any) -> Answer:
    return Client(urljoin(client.endpoint, "/v1/mcp/tools/execute"), client.key).post(body)


def suggestion(tool: str, call_id: str = "call_1", **arguments: Any) -> dict[str, Any]:
    """What a model answers with when it wants a tool called."""
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def test_tools_are_told_as_functions_with_those_that_need_no_asking(cluster: Cluster) -> None:
    client = cluster.client(MEMBER)
    body = client.get(urljoin(client.endpoint, "/v1/mcp/tools")).json
    (only,) = body["data"]
    assert only["function"]["name"] == "one__say"
    assert only["function"]["parameters"]["type"] == "object"
    assert body["auto_execute"] == []
    root = cluster.client(ROOT)
    assert root.get(urljoin(root.endpoint, "/v1/mcp/tools")).json["auto_execute"] == ["one__say"]


def test_a_suggestion_is_run_when_asked_and_answers_as_a_message(cluster: Cluster) -> None:
    answer = execute(cluster.client(ROOT), suggestion("one__say", text="hi"))
    assert answer.status == 200
    assert answer.json == {"role": "tool", "tool_call_id": "call_1", "content": "hi"}


def test_a_suggestion_of_the_responses_api_answers_in_its_form(cluster: Cluster) -> None:
    fields = {"type": "function_call", "call_id": "c", "name": "one__say"}
    fields["arguments"] = '{"text":"x"}'
    answer = execute(cluster.client(ROOT), fields)
    assert answer.json == {"type": "function_call_output", "call_id": "c", "output": "x"}


def test_several_suggestions_are_each_judged_on_their_own(cluster: Cluster) -> None:
    calls = [suggestion("one__say", "a", text="1"), suggestion("two__say", "b", text="2")]
    message = {"role": "assistant", "tool_calls": calls}
    answer = execute(cluster.client(MEMBER), message)
    assert answer.status == 200
    first, second = answer.json["messages"]
    assert first == {"role": "tool", "tool_call_id": "a", "content": "1"}
    assert second["content"].startswith("unknown_tool: ")
    assert answer.headers["x-toolbus-is-error"] == "true"


@pytest.mark.parametrize(
    ("secret", "body", "status", "code"),
    [
        (MEMBER, suggestion("two__say", text="x"), 404, "unknown_tool"),
        (ROOT, {"id": "x", "function": {"name": "one__say", "arguments": "[1]"}}, 400, "invalid"),
        (ROOT, {"function": {"name": "one__say", "arguments": "{}"}}, 400, "invalid"),
        (ROOT, {"tool_calls": []}, 400, "invalid"),
        (ROOT, b"{", 400, "invalid"),
        ("tbk_nobody_a-secret-of-governance", suggestion("one__say"), 401, "unauthorized"),
    ],
)
def test_what_cannot_be_run_is_told_with_its_status(
    cluster: Cluster, secret: str, body: Any, status: int, code: str
) -> None:
    answer = execute(cluster.client(secret), body)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.json["error"]["message"]
