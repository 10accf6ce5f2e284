"""Import of servers from the files of MCP clients; credentials are left out."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from toolbus_cli.errors import CommandError
from toolbus_cli.importing.client_servers import Taken, as_yaml, read
from toolbus_common.config_store.loading.loader import load


def taken(tmp_path: Path, servers: dict[str, Any], under: str = "mcpServers") -> Taken:
    path = tmp_path / "client.json"
    path.write_text(json.dumps({under: servers}))
    return read(path)


def test_a_command_and_its_arguments_become_one_list(tmp_path: Path) -> None:
    found = taken(tmp_path, {"git": {"command": "uvx", "args": ["git", 1], "cwd": "/src"}})
    assert found.servers == {"git": {"command": ["uvx", "git", "1"], "cwd": "/src"}}


@pytest.mark.parametrize("under", ["mcpServers", "servers"])
def test_a_url_is_read_from_either_field(tmp_path: Path, under: str) -> None:
    found = taken(tmp_path, {"docs": {"type": "http", "url": "https://docs/mcp"}}, under)
    assert found.servers == {"docs": {"url": "https://docs/mcp"}}


def test_a_credential_becomes_a_reference_without_its_value(tmp_path: Path) -> None:
    env = {"GITHUB_TOKEN": "ghp_value", "LANG": "C"}
    headers = {"Authorization": "Bearer abc-value", "X-Region": "eu"}
    found = taken(
        tmp_path,
        {
            "github": {"command": "x", "env": env},
            "docs": {"url": "https://docs/mcp", "headers": headers},
        },
    )
    assert found.servers["github"]["env"] == {"GITHUB_TOKEN": "${env:GITHUB_TOKEN}", "LANG": "C"}
    assert found.servers["docs"]["headers"] == {
        "Authorization": "Bearer ${env:DOCS_AUTHORIZATION}",
        "X-Region": "eu",
    }
    assert "value" not in as_yaml(found) + " ".join(found.notes)
    assert [note.split()[1] for note in found.notes] == ["GITHUB_TOKEN", "DOCS_AUTHORIZATION"]


def test_credentials_of_one_name_in_two_servers_stay_separate(tmp_path: Path) -> None:
    servers = {name: {"command": "x", "env": {"API_KEY": name}} for name in ("one", "two")}
    found = taken(tmp_path, servers)
    assert found.servers["one"]["env"] == {"API_KEY": "${env:API_KEY}"}
    assert found.servers["two"]["env"] == {"API_KEY": "${env:TWO_API_KEY}"}


def test_a_clients_variable_reference_becomes_ours(tmp_path: Path) -> None:
    env = {"API_KEY": "${MY_KEY}", "A": "${env:B}", "C": "$MY_D", "E": "${F:-g}", "H": "5$ a$B"}
    found = taken(tmp_path, {"a": {"command": "x", "env": env}})
    assert found.servers["a"]["env"] == {
        "API_KEY": "${env:MY_KEY}",
        "A": "${env:B}",
        "C": "${env:MY_D}",
        "E": "${env:F}",
        "H": "5$ a$B",
    }
    assert found.notes == []


def test_an_entry_that_cannot_be_imported_is_reported_with_the_reason(tmp_path: Path) -> None:
    found = taken(
        tmp_path,
        {
            "part": {"type": "builtin", "command": "x"},
            "off": {"command": "x", "disabled": True},
            "empty": {},
            "none": 3,
            "git hub": {"command": "x"},
            "git-hub": {"command": "y"},
        },
    )
    assert list(found.servers) == ["git-hub"]
    assert len(found.skipped) == 5
    assert "part of the client itself" in found.skipped[0]


def test_imported_servers_are_a_valid_configuration(tmp_path: Path) -> None:
    found = taken(
        tmp_path,
        {
            "a__b c/d" * 10: {"command": "x", "env": {"API_KEY": "v", "N": 1}},
            "___": {"url": "https://docs/mcp"},
        },
    )
    assert load(as_yaml(found), {"API_KEY": "v"}).problems == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mcpServers": []}', "{"])
def test_an_invalid_file_is_rejected_with_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "client.json"
    path.write_text(text)
    with pytest.raises(CommandError, match=r"(?i)give (a|another) file"):
        read(path)


def test_a_missing_file_is_reported_with_one_message(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        read(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("name", "called"),
    [("My Server", "My-Server"), ("a__b", "a_b"), ("@x/y", "x-y"), ("!", "server")],
)
def test_an_invalid_name_becomes_the_nearest_valid_one(
    tmp_path: Path, name: str, called: str
) -> None:
    assert list(taken(tmp_path, {name: {"command": "x"}}).servers) == [called]


CLIENTS: dict[str, dict[str, Any]] = {
    "codex/config.toml": {
        "git": {
            "command": ["uvx", "mcp-server-git"],
            "env": {"LANG": "C", "GIT_DIR": "${env:GIT_DIR}"},
            "timeout": 90.0,
        },
        "docs": {
            "url": "https://docs.example/mcp",
            "headers": {
                "X-Region": "eu",
                "X-Team": "${env:TEAM}",
                "Authorization": "Bearer ${env:DOCS_TOKEN}",
            },
            "expose": ["search"],
        },
    },
    "vscode/settings.json": {
        "git": {"command": ["uvx", "mcp-server-git"], "env": {"LANG": "C"}},
        "docs": {"url": "https://docs.example//mcp", "headers": {"X-Key": "${env:DOCS_API_KEY}"}},
    },
    "vscode/mcp.json": {"git": {"command": ["uvx", "mcp-server-git"], "env": {"LANG": "C"}}},
    "zed/settings.json": {
        "git": {"command": ["uvx", "mcp-server-git"], "env": {"LANG": "C"}},
        "old": {"command": ["x", "y"], "env": {"A": "b"}},
        "docs": {"url": "https://docs.example/mcp"},
    },
    "gemini/settings.json": {
        "git": {"command": ["uvx", "mcp-server-git"], "env": {"LANG": "C"}},
        "docs": {
            "url": "https://docs.example/mcp",
            "headers": {"X-A": "${env:TEAM}"},
            "tools": {"rm": {"hidden": True}},
        },
        "old": {"url": "https://old.example/sse"},
    },
    "goose/config.yaml": {
        "git": {
            "command": ["uvx", "mcp-server-git"],
            "env": {"LANG": "C", "GIT_DIR": "${env:GIT_DIR}"},
        },
        "docs": {"url": "https://docs.example/mcp", "headers": {"X-A": "b"}},
        "old": {"sse": "https://old.example/sse"},
    },
    "windsurf/mcp_config.json": {"docs": {"url": "https://docs.example/mcp"}},
    "opencode/opencode.json": {
        "git": {"command": ["uvx", "mcp-server-git"], "env": {"LANG": "C"}},
        "docs": {"url": "https://docs.example/mcp"},
    },
    "continue/config.yaml": {"git": {"command": ["uvx", "mcp-server-git"], "env": {"LANG": "C"}}},
}


@pytest.mark.parametrize("file", CLIENTS)
def test_each_clients_file_is_imported(file: str) -> None:
    found = read(Path(__file__).with_name("client_files") / file)
    assert found.servers == CLIENTS[file]
    assert load(as_yaml(found), {}).problems == ()


def test_a_credential_in_a_command_becomes_a_variable_of_a_shell(tmp_path: Path) -> None:
    args = ["--api-key", "sk-value", "--token=sk value", "--verbose", "a b; rm", "${dir}/x"]
    found = taken(tmp_path, {"a": {"command": "x", "args": args, "env": {"B": "c"}}})
    assert found.servers["a"] == {
        "command": [
            "sh",
            "-c",
            "exec x --api-key \"$A_API_KEY\" --token=\"$A_TOKEN\" --verbose 'a b; rm' '${dir}/x'",
        ],
        "env": {"B": "c", "A_API_KEY": "${env:A_API_KEY}", "A_TOKEN": "${env:A_TOKEN}"},
    }
    assert list(found.moved) == ["A_API_KEY", "A_TOKEN"]
    assert "value" not in as_yaml(found) + " ".join(found.notes).replace("the value", "")


def test_a_credential_is_found_by_its_form(tmp_path: Path) -> None:
    word = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    server = {"command": "x", "args": [word], "env": {"SETTING": word}}
    found = taken(tmp_path, {"a": server})
    assert found.servers["a"]["env"]["SETTING"] == "${env:SETTING}"
    assert word not in as_yaml(found) + " ".join(found.notes)


@pytest.mark.parametrize(
    "url", ["https://a.example/mcp?api_key=sk-value", "https://user:sk-value@a.example/mcp"]
)
def test_a_url_with_a_credential_is_left_out_without_its_value(tmp_path: Path, url: str) -> None:
    found = taken(tmp_path, {"a": {"url": url}, "b": {"url": "https://b.example/?page=2"}})
    assert list(found.servers) == ["b"]
    assert "its URL contains a credential" in found.skipped[0]
    assert "sk-value" not in as_yaml(found) + " ".join(found.notes)


def test_servers_of_litellm_are_imported(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
model_list: []
mcp_servers:
  tide:
    url: https://mcp.tide.example/mcp
    transport: http
    auth_type: bearer_token
    auth_value: os.environ/TIDE_TOKEN
    static_headers: {X-Units: m}
    allowed_tools: [list_tides]
  plain:
    {url: "https://plain.example/sse", transport: sse, auth_type: api_key, auth_value: sk-value}
  local: {transport: stdio, command: npx, args: ["-y", "tide-mcp"], env: {KEY: os.environ/TIDE_KEY}}
""")
    found = read(path)
    assert found.servers == {
        "tide": {
            "url": "https://mcp.tide.example/mcp",
            "headers": {"X-Units": "m", "Authorization": "Bearer ${env:TIDE_TOKEN}"},
            "expose": ["list_tides"],
        },
        "plain": {
            "sse": "https://plain.example/sse",
            "headers": {"X-API-Key": "${env:PLAIN_X_API_KEY}"},
        },
        "local": {"command": ["npx", "-y", "tide-mcp"], "env": {"KEY": "${env:TIDE_KEY}"}},
    }
    assert load(as_yaml(found), {}).problems == ()


def test_servers_of_bifrost_are_imported(tmp_path: Path) -> None:
    servers = [
        {
            "name": "tide", "connection_type": "http", "tools_to_execute": ["list_tides"],
            "connection_string": "https://mcp.tide.example/mcp",
            "headers": {"Authorization": "env.TIDE_TOKEN"},
        },
        {
            "name": "local", "connection_type": "stdio", "tools_to_execute": ["*"],
            "stdio_config": {"command": "npx", "args": ["-y", "tide-mcp"], "envs": ["TIDE_KEY"]},
        },
    ]  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"providers": {}, "mcp": {"client_configs": servers}}))
    found = read(path)
    assert found.servers == {
        "tide": {
            "url": "https://mcp.tide.example/mcp",
            "headers": {"Authorization": "${env:TIDE_TOKEN}"},
            "expose": ["list_tides"],
        },
        "local": {
            "command": ["npx", "-y", "tide-mcp"],
            "env": {"TIDE_KEY": "${env:TIDE_KEY}"},
        },
    }


def test_servers_of_a_docker_catalogue_are_imported(tmp_path: Path) -> None:
    path, image = tmp_path / "catalog.yaml", f"mcp/tide@sha256:{'0' * 64}"
    path.write_text(f"""
version: 2
name: own
registry:
  tide:
    type: server
    image: {image}
    command: [--stdio]
    secrets: [{{name: tide.key, env: TIDE_KEY}}]
    env: [{{name: UNITS, value: m}}, {{name: HOST, value: "{{{{tide.host}}}}"}}]
  floating: {{type: server, image: "mcp/floating:latest"}}
  far:
    type: remote
    remote: {{url: "https://mcp.far.example/mcp", transport_type: streamable-http}}
""")
    found = read(path)
    assert found.servers == {
        "tide": {
            "container": {"image": image, "args": ["--stdio"]},
            "env": {"UNITS": "m", "TIDE_KEY": "${env:TIDE_KEY}"},
        },
        "far": {"url": "https://mcp.far.example/mcp"},
    }
    assert "no digest" in found.skipped[0]
    assert load(as_yaml(found), {}).problems == ()


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefgh"))
        + "extensions: *h\n",
        "mcp_servers: {a: {url: x}, a: {url: y}}",
        "mcp_servers: !!python/object/apply:os.system [id]",
        "[" * 100_000,
    ],
)
def test_a_hostile_yaml_file_is_rejected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(CommandError, match=r"is not valid YAML|has no MCP servers"):
        read(path)
