"""A2A agents of both protocol versions through a whole gateway."""

import json
from collections.abc import Iterator

import pytest

from harness.a2a.agent import Agent
from harness.gateway.launched_gateway import Launched

KEY = "tbk_bot_e2e-secret-of-the-a2a-caller"
OTHER_KEY = "tbk_other_e2e-secret-of-another-a2a-caller"
TOKEN = "agent-token-of-the-e2e-tests"
VERSIONS = {"new": "1.0", "old": "0.3"}
SERVERS = [*VERSIONS]


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Agent]]:
    """Run an agent of each version."""
    directory = tmp_path_factory.mktemp("agents")
    made = {name: Agent(directory / name, version) for name, version in VERSIONS.items()}
    with made["new"].running(), made["old"].running():
        yield made


@pytest.fixture(scope="module")
def launched(
    agents: dict[str, Agent], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launched]:
    """Run a gateway with both agents."""
    gateway = Launched(tmp_path_factory.mktemp("a2a"), AGENT_TOKEN=TOKEN)
    headers = {"Authorization": "Bearer ${env:AGENT_TOKEN}"}
    servers = {name: {"a2a": each.origin, "headers": headers} for name, each in agents.items()}
    tools = [f"{name}__write-report" for name in agents]
    keys = {
        "bot": {"secret": KEY, "tools": tools, "budget": {"usd": 0.07, "per": "month"}},
        "other": {"secret": OTHER_KEY, "tools": tools},
    }
    with gateway.running({"servers": servers, "keys": keys, "prices": {"*": 0.01}}):
        gateway.until_listed(gateway.client(KEY), *tools)
        yield gateway


@pytest.mark.parametrize("name", SERVERS)
def test_a_skill_is_called_like_any_tool(
    launched: Launched, agents: dict[str, Agent], name: str
) -> None:
    client, tool = launched.client(KEY), f"{name}__write-report"
    assert set(client.tools()) == {f"{each}__write-report" for each in agents}
    assert client.call(tool, {"message": "report Q3"}).text == "Report on report Q3"
    (request,) = agents[name].received("SendStreamingMessage", "message/stream")
    assert request["headers"] == {
        "a2a-version": VERSIONS[name], "authorization": f"Bearer {TOKEN}"
    }  # fmt: skip
    assert client.call(f"{name}__translate", {"message": "x"}).code == "unknown_tool"


@pytest.mark.parametrize("name", SERVERS)
def test_another_key_cannot_use_a_task(launched: Launched, name: str) -> None:
    client, tool = launched.client(KEY), f"{name}__write-report"
    about = client.call(tool, {"message": "ask"}).json["result"]["structuredContent"]
    given = {"message": "Q3", "task_id": about["task_id"]}
    refused = launched.client(OTHER_KEY).call(tool, given)
    failure = refused.json["result"]["_meta"]["dev.toolbus/failed"]
    assert failure["code"] == "invalid_arguments"
    assert client.call(tool, given).text == "Thanks for Q3"


def test_status_shows_the_kind(launched: Launched) -> None:
    servers = json.loads(launched.toolbus("status", "--json").stdout)["servers"]
    assert {each["name"]: each["kind"] for each in servers} == dict.fromkeys(VERSIONS, "a2a")


def test_a_budget_counts_the_calls_of_both_agents(launched: Launched) -> None:
    client = launched.client(KEY)
    codes = {client.call("new__write-report", {"message": "say hi"}).code for _ in range(8)}
    assert "budget_exceeded" in codes
