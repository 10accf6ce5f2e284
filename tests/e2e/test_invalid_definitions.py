"""Invalid definitions and results of servers, read by the strictest clients."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.clients import strict_clients
from harness.gateway.launched_gateway import Launched
from harness.samples.odd_definitions import (
    CASES,
    GOOD,
    LISTS,
    PROMPTS_HELD,
    PROMPTS_SHOWN,
    RESOURCES_HELD,
    RESOURCES_SHOWN,
    RESULTS,
    RESULTS_FAULTY,
    RESULTS_READ,
    TEMPLATES_SHOWN,
    TOOLS_HELD,
    TOOLS_SHOWN,
)
from harness.upstreams import scripted_server

KEY = "tbk_bot_e2e-secret-for-odd-definitions"
SERVERS = ("pipe", "web")
LISTED = {
    "tools": {*GOOD, *TOOLS_SHOWN, *RESULTS_READ, *RESULTS_FAULTY},
    "prompts": {*GOOD, *PROMPTS_SHOWN},
    "resources": {"odd://good", *RESOURCES_SHOWN},
    "resourceTemplates": {*TEMPLATES_SHOWN},
}
clients = pytest.mark.parametrize(
    ("sdk", "family"), [("v1", "legacy"), ("v2", "legacy"), ("v2", "modern")]
)
endpoints = pytest.mark.parametrize("server", ["", *SERVERS])


@dataclass
class CarelessGateway:
    """A gateway with one careless server on stdio and over HTTP, and the strict client."""

    launched: Launched
    program: Path

    def endpoint(self, server: str) -> str:
        """Return the shared endpoint, or that of one server."""
        shared = self.launched.client(KEY).endpoint
        return f"{shared}/{server}" if server else shared


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[CarelessGateway]:
    """Run one server of many invalid definitions, twice."""
    assert pytestconfig.cache is not None
    program = strict_clients.installed(pytestconfig.cache.mkdir("node-strict"))
    directory = tmp_path_factory.mktemp("odd")
    fields = {"lists": LISTS, "results": RESULTS}
    source = Path(scripted_server.__file__)
    stored = directory / "told.json"
    stored.write_text(json.dumps(fields))
    launched = Launched(directory)
    with scripted_server.serving(fields) as url:
        pipe = {
            "command": [sys.executable, str(source), str(stored)],
            "files": {"read": [str(source), str(stored)]},
        }
        key = {"secret": KEY, "tools": ["*"]}
        with launched.running(
            {"servers": {"pipe": pipe, "web": {"url": url}}, "keys": {"bot": key}}
        ):
            launched.until_listed(launched.client(KEY), "pipe__good", "web__good")
            yield CarelessGateway(launched, program)


def expected(server: str) -> dict[str, set[str]]:
    """Return the names a client must get at an endpoint."""
    if server:
        return LISTED
    named = {
        kind: {f"{each}__{name}" for each in SERVERS for name in LISTED[kind]}
        for kind in ("tools", "prompts")
    }
    # Of two servers with one URI the second is listed with its name as a prefix.
    marked = LISTED["resources"] | {f"web+{uri}" for uri in LISTED["resources"]}
    return {**named, "resources": marked, "resourceTemplates": LISTED["resourceTemplates"]}


def test_there_are_more_invalid_definitions_than_the_strict_sdk_rejects() -> None:
    assert len(CASES) >= 60


@clients
@endpoints
def test_the_typescript_sdk_reads_every_list(
    gateway: CarelessGateway, server: str, sdk: str, family: str
) -> None:
    endpoint = gateway.endpoint(server)
    result = strict_clients.typescript(
        gateway.program, sdk=sdk, family=family, endpoint=endpoint, key=KEY
    )
    assert {member: set(found) for member, found in result["lists"].items()} == expected(server)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@endpoints
async def test_the_python_sdk_reads_every_list(
    gateway: CarelessGateway, server: str, mode: str
) -> None:
    result = await strict_clients.python(gateway.endpoint(server), KEY, mode)
    assert {member: set(found) for member, found in result.items()} == expected(server)


def test_operators_see_quarantined_and_repaired_definitions_with_reasons(
    gateway: CarelessGateway,
) -> None:
    body = json.loads(gateway.launched.toolbus("tools", "--quarantined", "--json").stdout)
    held = {each["name"]: each["hidden"] for each in body if "hidden" in each}
    repaired = {each["name"]: each["repaired"] for each in body if "repaired" in each}
    for server in SERVERS:
        names = {*TOOLS_HELD, *PROMPTS_HELD, *RESOURCES_HELD}
        assert {f"{server}__{name}" for name in names} <= held.keys()
        assert {f"{server}__{name}" for name in {**TOOLS_SHOWN, **PROMPTS_SHOWN}} <= repaired.keys()
    assert held["web__type_string"] == "inputSchema.type must be object"
    assert repaired["web__required_null"] == "inputSchema.required was null and was left out"
    status: dict[str, Any] = json.loads(gateway.launched.toolbus("status", "--json").stdout)
    row = next(each for each in status["servers"] if each["name"] == "web")
    assert "type_string" in row["dropped"]
    assert "required_null" in row["repaired"]
    found = gateway.launched.eventual_events("server = 'web'", "server.faulted")
    event = json.loads(found["server.faulted"]["detail"])
    assert "type_string" in event["dropped"]
    assert "required_null" in event["repaired"]


def test_a_quarantined_tool_cannot_be_called_and_a_repaired_one_can(
    gateway: CarelessGateway,
) -> None:
    client = gateway.launched.client(KEY)
    assert client.call("web__type_string").code == "unknown_tool"
    for server in SERVERS:
        assert json.loads(client.call(f"{server}__empty_schema").text) == ["empty_schema", {}]


@clients
@pytest.mark.parametrize("server", SERVERS)
def test_the_typescript_sdk_reads_every_result_or_gets_the_servers_error(
    gateway: CarelessGateway, server: str, sdk: str, family: str
) -> None:
    names = [*RESULTS_READ, *RESULTS_FAULTY]
    reference = {"type": "ref/prompt", "name": "good"}
    calls: list[tuple[str, dict[str, Any]]] = [
        *(("callTool", {"name": name, "arguments": {}}) for name in names),
        ("getPrompt", {"name": "arguments_null"}),
        ("readResource", {"uri": "odd://size"}),
        ("complete", {"ref": reference, "argument": {"name": "a", "value": "odd"}}),
        ("getPrompt", {"name": "arguments_object"}),
        ("readResource", {"uri": "odd://good"}),
        ("complete", {"ref": reference, "argument": {"name": "a", "value": "odder"}}),
    ]
    endpoint = gateway.endpoint(server)
    result = strict_clients.typescript(
        gateway.program, sdk=sdk, family=family, endpoint=endpoint, key=KEY, calls=calls
    )["calls"]
    read, faulty = len(RESULTS_READ), len(names)
    good = [*result[:read], *result[faulty : faulty + 3]]
    bad = [*result[read:faulty], *result[faulty + 3 :]]
    assert [each["error"] for each in good if "error" in each] == []
    assert good[-2]["result"]["contents"] == [{"text": "read", "uri": "odd://size"}]
    assert len(bad) == len(RESULTS_FAULTY) + 3
    for each in bad:
        assert "result cannot be parsed by clients" in each.get("error", str(each))
