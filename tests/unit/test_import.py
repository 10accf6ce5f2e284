"""Taking over a client's mcpServers: what can be taken is, what cannot is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from toolbus_cli import servers_json
from toolbus_cli.errors import CommandError
from toolbus_cli.servers_json import Taken
from toolbus_common.declaring.loading import load


def taken(path: Path, servers: dict[str, Any]) -> Taken:
    file = path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": servers}))
    return servers_json.read(file)


def test_a_command_and_its_arguments_become_one_list(tmp_path: Path) -> None:
    found = taken(tmp_path, {"git": {"command": "uvx", "args": ["mcp-server-git"], "cwd": "/w"}})
    assert found.servers == {"git": {"command": ["uvx", "mcp-server-git"], "cwd": "/w"}}


def test_a_variable_is_written_our_way(tmp_path: Path) -> None:
    found = taken(tmp_path, {"a": {"command": "x", "env": {"T": "${TOKEN}", "U": "${env:USER}"}}})
    assert found.servers["a"]["env"] == {"T": "${env:TOKEN}", "U": "${env:USER}"}


def test_a_url_keeps_its_headers(tmp_path: Path) -> None:
    server = {"type": "http", "url": "https://a.example/mcp", "headers": {"X-Team": "k"}}
    found = taken(tmp_path, {"a": server})
    assert found.servers == {"a": {"url": "https://a.example/mcp", "headers": {"X-Team": "k"}}}


@pytest.mark.parametrize(
    ("name", "called"),
    [("My Server", "My-Server"), ("a__b", "a_b"), ("@x/y", "x-y"), ("!", "server")],
)
def test_a_name_we_do_not_allow_is_brought_near(tmp_path: Path, name: str, called: str) -> None:
    assert list(taken(tmp_path, {name: {"command": "x"}}).servers) == [called]


@pytest.mark.parametrize(
    "server",
    [{"type": "sse", "url": "http://a.example"}, {"command": "x", "disabled": True}, {}, 7],
)
def test_what_cannot_be_taken_is_told(tmp_path: Path, server: Any) -> None:
    found = taken(tmp_path, {"a": server})
    assert found.servers == {}
    assert found.skipped[0].startswith("'a' is left out: ")


def test_what_is_taken_is_a_configuration_without_a_fault(tmp_path: Path) -> None:
    found = taken(tmp_path, {"a": {"command": "x"}, "b": {"url": "http://b.example/mcp"}})
    loaded = load(servers_json.as_yaml(found), {})
    assert loaded.faults == ()
    assert list(loaded.declaration.servers) == ["a", "b"]


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(text)
    with pytest.raises(CommandError):
        servers_json.read(path)
