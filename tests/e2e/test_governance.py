"""Access over HTTP: groups, users, denials, restricted requests, and explicit execution."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import pytest

from harness.clients.admin_client import why
from harness.clients.bus_operator import key
from harness.clients.mcp_client import Answer, Client
from harness.gateway.cluster import Cluster, Upstream
from toolbus_common.config import Configuration, Server

ROOT, MEMBER, PERSON = (f"tbk_{name}_a-secret-of-governance" for name in ("root", "member", "ann"))


@pytest.fixture(scope="module", params=["separate", "fused"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Run a gateway with two servers and the keys of a team and of a person."""
    upstream = Upstream(tmp_path_factory.mktemp("upstream"))
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    server = Server(url=upstream.url)
    with (
        upstream.running(),
        cluster.running(configuration(one=server, two=server), fused=request.param == "fused"),
    ):
        cluster.until_listed(cluster.client(ROOT), "one__say", "two__say")
        yield cluster


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
    """Return the error code of a call, or an empty text."""
    params = {"name": tool, "arguments": {"text": "x"}}
    return client.request("tools/call", params, **headers).code


def test_a_teams_group_limits_its_keys_and_a_denial_wins(cluster: Cluster) -> None:
    member = cluster.client(MEMBER)
    assert tools(member) == {"one__say"}
    assert called(member, "one__say") == ""
    assert called(member, "two__say") == "unknown_tool", "denied"
    assert called(member, "one__count") == "unknown_tool", "not of the group"


def test_a_customers_denial_holds_for_its_users(cluster: Cluster) -> None:
    person = cluster.client(PERSON)
    assert {name.partition("__")[0] for name in tools(person)} == {"one"}
    assert called(person, "one__say") == ""
    assert called(person, "two__say") == "unknown_tool"


def test_a_request_restricts_its_scope_and_never_extends_it(cluster: Cluster) -> None:
    root, member = cluster.client(ROOT), cluster.client(MEMBER)
    assert tools(root, x_toolbus_servers="two", x_toolbus_tools="*__say") == {"two__say"}
    assert tools(root, x_toolbus_tools="") == set()
    assert tools(member, x_toolbus_tools="*") == {"one__say"}
    assert called(root, "one__say", x_toolbus_servers="two") == "unknown_tool"
    assert called(root, "two__say", x_toolbus_servers="two") == ""
    assert called(member, "two__say", x_toolbus_tools="two__say") == "unknown_tool"


def test_a_scope_header_with_too_many_patterns_is_rejected(cluster: Cluster) -> None:
    many = ",".join(["a"] * 65)
    assert cluster.client(ROOT).request("tools/list", x_toolbus_tools=many).code == "invalid"


# -- explicit execution ----------------------------------------------------------------------


def execute(client: Client, body: Any) -> Answer:
    return Client(urljoin(client.endpoint, "/v1/mcp/tools/execute"), client.key).post(body)


def suggestion(tool: str, call_id: str = "call_1", **arguments: Any) -> dict[str, Any]:
    """Return a tool call as a model suggests it."""
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def test_tools_are_listed_as_functions_with_the_automatic_ones(cluster: Cluster) -> None:
    client = cluster.client(MEMBER)
    body = client.get(urljoin(client.endpoint, "/v1/mcp/tools")).json
    (only,) = body["data"]
    assert only["function"]["name"] == "one__say"
    assert only["function"]["parameters"]["type"] == "object"
    assert body["auto_execute"] == []
    root = cluster.client(ROOT)
    assert root.get(urljoin(root.endpoint, "/v1/mcp/tools")).json["auto_execute"] == ["one__say"]


def test_a_suggested_call_is_executed_and_answered_as_a_message(cluster: Cluster) -> None:
    answer = execute(cluster.client(ROOT), suggestion("one__say", text="hi"))
    assert answer.status == 200
    assert answer.json == {"role": "tool", "tool_call_id": "call_1", "content": "hi"}


def test_a_suggested_call_of_the_responses_api_is_answered_in_its_form(cluster: Cluster) -> None:
    fields = {"type": "function_call", "call_id": "c", "name": "one__say"}
    fields["arguments"] = '{"text":"x"}'
    answer = execute(cluster.client(ROOT), fields)
    assert answer.json == {"type": "function_call_output", "call_id": "c", "output": "x"}


def tool_use(tool: str, call_id: str = "toolu_1", **arguments: Any) -> dict[str, Any]:
    """Return a tool call as a model suggests it over the messages API."""
    return {"type": "tool_use", "id": call_id, "name": tool, "input": arguments}


def test_a_suggested_call_of_the_messages_api_is_answered_in_its_form(cluster: Cluster) -> None:
    answer = execute(cluster.client(ROOT), tool_use("one__say", text="x"))
    assert answer.json == {"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}


def test_a_message_of_the_messages_api_is_answered_with_the_users_message(cluster: Cluster) -> None:
    text = {"type": "text", "text": "I call both."}
    calls = [tool_use("two__say", "a", text="1"), tool_use("one__say", "b", text="2")]
    answer = execute(cluster.client(MEMBER), {"role": "assistant", "content": [text, *calls]})
    assert (answer.status, answer.json["role"]) == (200, "user")
    first, second = answer.json["content"]
    assert (first["tool_use_id"], first["is_error"]) == ("a", True)
    assert first["content"].startswith("unknown_tool: ")
    assert second == {"type": "tool_result", "tool_use_id": "b", "content": "2"}
    assert answer.headers["x-toolbus-is-error"] == "true"


@pytest.mark.parametrize("form", ["chat", "responses", "messages"])
def test_tools_are_listed_in_the_form_of_each_api(cluster: Cluster, form: str) -> None:
    client = cluster.client(MEMBER)
    url = urljoin(client.endpoint, "/v1/mcp/tools")
    (chat,) = client.get(url).json["data"]
    (tool,) = client.get(f"{url}?format={form}").json["data"]
    function = chat["function"]
    if form == "chat":
        assert tool == chat
    elif form == "responses":
        assert tool == {"type": "function", **function, "strict": False}
    else:
        assert tool == {"name": "one__say", "input_schema": function["parameters"]}


@pytest.mark.parametrize("form", ["", "MESSAGES", "gemini", "chat%00"])
def test_tools_are_not_listed_in_an_unknown_form(cluster: Cluster, form: str) -> None:
    client = cluster.client(MEMBER)
    answer = client.get(urljoin(client.endpoint, f"/v1/mcp/tools?format={form}"))
    assert (answer.status, why(answer)) == (400, "invalid")


def test_tools_accept_the_key_as_x_api_key(cluster: Cluster) -> None:
    endpoint = cluster.client(MEMBER).endpoint
    tools_url, execute_url = (
        urljoin(endpoint, path) for path in ("/v1/mcp/tools", "/v1/mcp/tools/execute")
    )
    without = Client(execute_url, "")
    suggested = tool_use("one__say", text="x")
    assert without.get(tools_url, X_Api_Key=MEMBER).json["data"]
    assert without.post(suggested, X_Api_Key=MEMBER).json["content"] == "x"
    assert without.get(tools_url, X_Api_Key=f"{MEMBER}x").status == 401
    assert without.post(suggested, X_Api_Key=f"{MEMBER}x").status == 401
    assert Client(execute_url, ROOT).post(suggested, X_Api_Key=MEMBER).status == 401


def test_several_suggested_calls_are_authorized_separately(cluster: Cluster) -> None:
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
        (MEMBER, tool_use("two__say", text="x"), 404, "unknown_tool"),
        (ROOT, {**tool_use("one__say"), "input": "{}"}, 400, "invalid"),
        (ROOT, {"role": "assistant", "content": [tool_use("one__say")] * 2}, 400, "invalid"),
        (ROOT, b"{", 400, "invalid"),
        ("tbk_nobody_a-secret-of-governance", suggestion("one__say"), 401, "unauthorized"),
    ],
)
def test_an_invalid_suggestion_is_an_error_with_its_status(
    cluster: Cluster, secret: str, body: Any, status: int, code: str
) -> None:
    answer = execute(cluster.client(secret), body)
    assert (answer.status, why(answer)) == (status, code)
