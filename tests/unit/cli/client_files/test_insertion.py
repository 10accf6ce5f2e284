"""The gateway's entry in the files of MCP clients; everything else in a file stays."""

import json
import tomllib
from typing import Any

import pytest

from toolbus_cli.client_files.insertion import inserted
from toolbus_cli.errors import CommandError
from toolbus_common.agent_clients.configurations import CLIENTS, AgentClient, configuration

URL = "https://toolbus.example/mcp"
OTHER = {"command": "uvx", "args": ["git"]}


def added(client: AgentClient, secret: str = "tbk_1") -> dict[str, Any]:
    return configuration(client, URL, secret)


def parsed(client: AgentClient, text: str) -> Any:
    return tomllib.loads(text) if client.toml else json.loads(text)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
@pytest.mark.parametrize("text", ["", "\n"], ids=["absent", "empty"])
def test_a_new_file_has_only_the_entry(client: AgentClient, text: str) -> None:
    made = inserted(client, text, added(client), "file")
    assert parsed(client, made) == added(client)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
def test_the_same_entry_twice_changes_nothing(client: AgentClient) -> None:
    once = inserted(client, "", added(client), "file")
    assert inserted(client, once, added(client), "file") == once


@pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
def test_an_entry_of_the_same_name_is_replaced(client: AgentClient) -> None:
    once = inserted(client, "", added(client, "tbk_old"), "file")
    made = inserted(client, once, added(client, "tbk_new"), "file")
    assert parsed(client, made) == added(client, "tbk_new")
    assert "tbk_old" not in made


@pytest.mark.parametrize(
    "client", [each for each in CLIENTS.values() if not each.toml], ids=lambda client: client.name
)
def test_other_servers_settings_and_the_indent_of_json_stay(client: AgentClient) -> None:
    before = {"theme": "größe", client.section: {"git": OTHER}, "last": [1, None]}
    made = inserted(client, json.dumps(before, indent="\t"), added(client), "file")
    new = added(client)
    entries = {"git": OTHER, **new[client.section]}
    assert json.loads(made) == {**before, **new, client.section: entries}
    assert made.startswith('{\n\t"theme": "größe"')


def test_other_questions_of_vs_code_stay() -> None:
    question = {"id": "other", "type": "promptString"}
    own = {"id": "toolbus", "type": "pickString"}
    client = CLIENTS["vscode"]
    made = inserted(client, json.dumps({"inputs": [own, question]}), added(client), "file")
    assert json.loads(made)["inputs"] == [question, *added(client)["inputs"]]


CODEX = """# my settings
model = "gpt-5"

[mcp_servers.toolbus]  # the old one
url = "https://old.example/mcp"
[mcp_servers.toolbus.http_headers]
Authorization = "Bearer old"

[mcp_servers.git] # stays
command = "uvx"

[[profiles]]
name = "a"
"""


def test_comments_and_other_tables_of_toml_stay() -> None:
    client = CLIENTS["codex"]
    made = inserted(client, CODEX, added(client), "file")
    assert (
        tomllib.loads(made)["mcp_servers"]
        == {"git": {"command": "uvx"}} | (added(client)["mcp_servers"])
    )
    assert made.startswith('# my settings\nmodel = "gpt-5"\n')
    assert "[mcp_servers.git] # stays\n" in made
    assert "old" not in made


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("cursor", '{"mcpServers": {} // mine\n}', "Expecting"),
        ("cursor", "[1]", "not a JSON object"),
        ("cursor", '{"mcpServers": [1]}', "'mcpServers' is not an object"),
        ("cursor", "[" * 100_000, "recursion"),
        ("vscode", '{"inputs": {}}', "'inputs' is not a list"),
        ("codex", "mcp_servers = 1", "'mcp_servers' is not a table"),
        ("codex", "mcp_servers = {toolbus = {url = 'x'}}", "twice"),
        ("codex", "[mcp_servers]\ntoolbus = {url = 'x'}", "twice"),
        ("codex", "a = ", "Invalid value"),
    ],
)
def test_a_file_that_would_lose_something_is_refused_with_the_entry(
    name: str, text: str, reason: str
) -> None:
    client = CLIENTS[name]
    with pytest.raises(CommandError, match=r"(?i)cannot be changed without loss") as raised:
        inserted(client, text, added(client), "its-file")
    message = str(raised.value)
    assert reason.lower() in message.lower()
    assert message.startswith("its-file")
    assert URL in message
