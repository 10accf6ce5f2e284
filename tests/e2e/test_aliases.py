"""Tools under an alias, with an overridden description, or hidden by the operator."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from harness.clients.mcp_client import Client
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched

KEY = "tbk_bot_e2e-secret-for-aliases"


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Configure one server twice: unchanged, and with overridden tools."""
    echo = Upstream(tmp_path_factory.mktemp("aliased-echo"))
    cluster = Launched(tmp_path_factory.mktemp("aliased"))
    tools: dict[str, Any] = {
        "say": {"alias": "speak", "description": "Repeats what it is told."},
        "push_branch": {"hidden": True},
    }
    with (
        echo.running(),
        cluster.running(
            {
                "servers": {"echo": {"url": echo.url, "tools": tools}, "ech0": {"url": echo.url}},
                "keys": {
                    "bot": {
                        "secret": KEY,
                        "tools": ["echo__say", "echo__push_branch", "ech0__count"],
                    }
                },
            }
        ),
    ):
        cluster.until_listed(cluster.client(KEY), "ech0__count", "echo__speak")
        yield cluster


def test_a_client_uses_the_alias_while_grants_use_the_servers_name(
    launched: Launched,
) -> None:
    client = launched.client(KEY)
    assert client.call("echo__speak", {"text": "hi"}).text == "hi"
    assert client.call("echo__say", {"text": "hi"}).code == "unknown_tool"
    alone = Client(f"{client.endpoint}/echo", KEY)
    assert alone.tools() == ["speak"]
    assert alone.call("speak", {"text": "ho"}).text == "ho"
    assert alone.call("say", {"text": "ho"}).code == "unknown_tool"


def test_the_operators_description_replaces_the_servers(launched: Launched) -> None:
    result = launched.client(KEY).post(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    )
    (tool,) = [each for each in result.json["result"]["tools"] if each["name"] == "echo__speak"]
    assert tool["description"] == "Repeats what it is told."


def test_a_hidden_tool_is_neither_listed_nor_callable(launched: Launched) -> None:
    client = launched.client(KEY)
    assert "echo__push_branch" not in client.tools()
    assert client.call("echo__push_branch").code == "unknown_tool"
    assert Client(f"{client.endpoint}/echo", KEY).call("push_branch").code == "unknown_tool"


def test_the_operator_sees_hidden_tools_and_the_reason(launched: Launched) -> None:
    body = json.loads(launched.toolbus("tools", "--all", "--json").stdout)
    unseen = {each["name"]: each["hidden"] for each in body if "hidden" in each}
    assert unseen["echo__push_branch"] == "hidden by the configuration"
    assert unseen["echo__wait"] == "its name echo__wait looks like ech0__wait"
    assert "echo__speak" in {each["name"] for each in body}
