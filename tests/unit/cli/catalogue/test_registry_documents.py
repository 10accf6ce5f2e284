"""Documents of an MCP registry in every generation of their format, and malformed ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from toolbus_cli.catalogue.registry_documents import entries_of, is_latest, servers_of, version_of
from toolbus_cli.errors import CommandError
from toolbus_common.server_catalogue.entry import CatalogueEntry
from toolbus_common.server_catalogue.server_builder import server_of

SAMPLES = Path(__file__).parent / "registry"
SOURCE = "https://registry.example"
KEY = "${env:TIDE_API_KEY}"


def sample(name: str) -> list[Mapping[str, Any]]:
    return servers_of(json.loads((SAMPLES / f"{name}.json").read_text()))


def package(**fields: Any) -> tuple[list[CatalogueEntry], list[str]]:
    """Return what one package of a document becomes."""
    usual = {"registryType": "npm", "identifier": "tide-mcp", "version": "1.0.0"}
    return entries_of({"name": "a/tide", "packages": [usual | fields]}, SOURCE)


def test_every_remote_and_package_that_can_be_pinned_is_an_entry() -> None:
    (server,) = sample("camel_case")
    entries, problems = entries_of(server, SOURCE)
    assert [(each.transport, each.name, each.title) for each in entries] == [
        ("http", "tables", "Tide tables"),
        ("stdio", "tables", "Tide tables"),
        ("stdio", "tables", "Tide tables"),
    ]
    assert problems == [
        "a remote has the unknown transport 'carrier-pigeon'",
        "the image docker.io/tide/tables:1.4.0 has no digest",
        "packages of mcpb are not supported",
    ]


def test_a_remote_has_its_variables_and_secrets_as_settings() -> None:
    remote = entries_of(sample("camel_case")[0], SOURCE)[0][0]
    assert server_of(remote, {"region_id": "north"}) == {
        "url": "https://mcp.tide.example/north/mcp",
        "headers": {"Authorization": "${env:AUTHORIZATION}", "X-Units": "m"},
    }


def test_a_package_is_pinned_and_its_runtime_gets_no_arguments_of_the_document() -> None:
    npm = entries_of(sample("camel_case")[0], SOURCE)[0][1]
    assert server_of(npm, {"harbour": "Hook"}) == {
        "command": ["npx", "-y", "@tide/tables-mcp@1.4.0", "serve", "--harbour", "Hook"],
        "env": {"TIDE_API_KEY": KEY, "TIDE_UNITS": "m"},
    }


def test_documents_of_the_earlier_formats_are_read() -> None:
    second = entries_of(sample("snake_case")[0], SOURCE)[0][0]
    assert server_of(second, {}) == {
        "command": ["uvx", "--from", "tide-tables-mcp==1.2.0", "tide-tables-mcp"],
        "env": {"TIDE_API_KEY": KEY},
    }
    tide, floating = sample("first_list")
    assert (version_of(tide), is_latest(tide)) == ("1.0.0", True)
    (first,) = entries_of(tide, SOURCE)[0]
    assert first.settings[0].secret
    assert server_of(first, {"TIDE_API_KEY": KEY})["env"] == {"TIDE_API_KEY": KEY}
    assert str(first.source.date) == "2025-05-16"
    assert entries_of(floating, SOURCE)[0] == []


def test_a_response_of_the_api_is_unwrapped() -> None:
    official = {"io.modelcontextprotocol.registry/official": {"isLatest": True}}
    body = {"servers": [{"server": {"name": "a/b", "version": "2"}, "_meta": official}]}
    (server,) = servers_of(body)
    assert (server["name"], version_of(server), is_latest(server)) == ("a/b", "2", True)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "latest"},
        {"version": "^1.0"},
        {"version": "1.0.0 --registry=https://evil.example"},
        {"identifier": "--call=id"},
        {"identifier": "https://evil.example/x.tgz"},
        {"identifier": "../../etc/passwd"},
        {"identifier": "tide mcp"},
        {"registryType": "pypi", "identifier": "git+https://evil.example/x"},
        {"registryType": "nuget"},
        {"registryType": ["npm"]},
        {"transport": {"type": "streamable-http", "url": "http://localhost"}},
        {"packageArguments": [{"value": "{unnamed"}, {"value": "--key={secret-key}"}]},
        {"environmentVariables": [{"name": "A B"}]},
        {"environmentVariables": [{"name": 7}]},
    ],
)
def test_a_package_that_is_not_exactly_one_release_is_left_out(fields: dict[str, Any]) -> None:
    entries, problems = package(**fields)
    assert entries == []
    assert problems


@pytest.mark.parametrize(
    "url",
    ["http://mcp.example", "https://user:word@mcp.example/", "file:///etc/passwd", "", "https://"],
)
def test_a_remote_without_https_is_left_out(url: str) -> None:
    remote = {"type": "streamable-http", "url": url}
    assert entries_of({"name": "a/b", "remotes": [remote]}, SOURCE)[0] == []


@pytest.mark.parametrize(
    "name", ["a/../../../etc/passwd", "a/\u202e\u0000x", "/", "x" * 10_000, "a/b__c d"]
)
def test_a_server_has_a_valid_name_whatever_the_document_says(name: str) -> None:
    remote = {"type": "sse", "url": "https://mcp.example/sse"}
    (entry,), _ = entries_of({"name": name, "remotes": [remote]}, SOURCE)
    assert len(entry.name) <= 32
    assert not set(entry.name) & set("/.\u202e\u0000 ")


@pytest.mark.parametrize("document", [3, "x", None, {"servers": 3}])
def test_a_document_of_another_kind_is_rejected(document: Any) -> None:
    with pytest.raises(CommandError, match="give another file or URL"):
        servers_of(document)


def test_what_is_no_server_in_a_list_is_ignored() -> None:
    assert servers_of([None, 3, {"name": 4}, {}]) == []


def test_a_list_is_bounded() -> None:
    with pytest.raises(CommandError, match="at most"):
        servers_of([{"name": "a"}] * 20_001)


def test_malformed_parts_of_a_document_are_ignored() -> None:
    document = {
        "name": "a/b", "title": 3, "description": None, "repository": "x", "remotes": {"a": 1},
        "packages": [3, {"environmentVariables": "x"}], "version_detail": [],
    }  # fmt: skip
    entries, problems = entries_of(document, SOURCE)
    assert entries == []
    assert problems
