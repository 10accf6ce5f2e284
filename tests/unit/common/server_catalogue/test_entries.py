"""Every entry that comes with Toolbus: its form, its source, and the server it configures."""

import json
import re
from collections import Counter
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from toolbus_common.config import Server
from toolbus_common.guards.secrets.detector import SecretsDetector
from toolbus_common.secrets import REFERENCE
from toolbus_common.server_catalogue.catalogue import entries, matching
from toolbus_common.server_catalogue.entry import CatalogueEntry
from toolbus_common.server_catalogue.responses import entry_response
from toolbus_common.server_catalogue.server_builder import (
    SettingError,
    missing_settings,
    server_of,
)

ALL = list(entries().values())
NAMES = [each.name for each in ALL]
DETECTOR = SecretsDetector()
SOURCE = {"url": "https://vendor.example/mcp", "date": "2026-11-24"}


def filled(entry: CatalogueEntry, *, installed: bool = False) -> dict[str, Any]:
    values = {each.name: "value" for each in missing_settings(entry, {})}
    return server_of(entry, values, installed=installed)


def made(**fields: object) -> CatalogueEntry:
    """Return an entry with these fields."""
    usual = {
        "name": "tide", "title": "Tide", "publisher": "Tide", "description": "Tides.",
        "transport": "http", "source": SOURCE,
    }  # fmt: skip
    return CatalogueEntry.model_validate(usual | fields)


def test_the_catalogue_has_many_servers_with_unique_addresses() -> None:
    assert len(ALL) >= 60
    addresses = Counter(each.url or f"{each.package}" for each in ALL)
    assert [each for each, count in addresses.items() if count > 1] == []


@pytest.mark.parametrize("entry", ALL, ids=NAMES)
def test_an_entry_names_its_source_labels_and_a_valid_server(entry: CatalogueEntry) -> None:
    assert urlsplit(entry.source.url).hostname
    assert entry.source.date <= date(2030, 1, 1)
    assert entry.topics
    assert entry.reads is not None
    assert entry.writes is not None
    for installed in (False, True):
        Server.model_validate_json(json.dumps(filled(entry, installed=installed)))
    assert entry_response(entry).program is not bool(entry.url)


@pytest.mark.parametrize("entry", ALL, ids=NAMES)
def test_an_entry_contains_no_secret(entry: CatalogueEntry) -> None:
    text = entry.model_dump_json()
    assert DETECTOR.find([text]) == []
    assert not re.search(r"\$\{[a-z]+:", text)
    secrets = [each for each in entry.settings if each.secret]
    server = filled(entry)
    values = {**server.get("env", {}), **server.get("headers", {})}
    for setting in secrets:
        if setting.required:
            assert any(f"${{env:{setting.name}}}" in str(value) for value in values.values())


def test_a_secret_must_be_a_reference() -> None:
    github = entries()["github"]
    for value in ("ghp_plain", "x${env:A}", "${env:A}x", "${env:}"):
        with pytest.raises(SettingError) as raised:
            server_of(github, {"GITHUB_TOKEN": value})
        assert value not in str(raised.value)
    headers = server_of(github, {"GITHUB_TOKEN": "${vault:kv/github#token}"})["headers"]
    assert headers == {"Authorization": "Bearer ${vault:kv/github#token}"}
    assert REFERENCE.search(headers["Authorization"])


def test_a_missing_or_unknown_setting_is_an_error() -> None:
    filesystem = entries()["filesystem"]
    with pytest.raises(SettingError, match="needs directory"):
        server_of(filesystem, {})
    with pytest.raises(SettingError, match="no setting 'other'; it has: directory"):
        server_of(filesystem, {"directory": "/srv", "other": "x"})
    with pytest.raises(SettingError, match="control character"):
        server_of(filesystem, {"directory": "/srv\n- x"})


def test_an_optional_secret_is_left_out_unless_it_is_given() -> None:
    context7 = entries()["context7"]
    assert "headers" not in server_of(context7, {})
    given = server_of(context7, {"CONTEXT7_API_KEY": "${env:C7}"})
    assert given["headers"] == {"Authorization": "Bearer ${env:C7}"}


def test_an_installed_program_reaches_only_what_it_needs() -> None:
    time = entries()["time"]
    assert server_of(time, {}, installed=True) == {
        "command": ["mcp-server-time", "--local-timezone=UTC"],
        "network": "none",
        "reads": ["public"],
        "writes": "nothing",
    }
    brave = server_of(entries()["brave-search"], {}, installed=True)
    assert brave["network"] == {"hosts": ["api.search.brave.com"]}
    assert "network" not in server_of(entries()["brave-search"], {})


def test_a_package_is_pinned_to_one_version() -> None:
    for entry in ALL:
        if entry.package is not None:
            pinned = f"@{entry.package.version}", f"=={entry.package.version}"
            command = filled(entry)["command"]
            assert any(str(word).endswith(pinned) for word in command)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "exactly one"),
        ({"url": "http://mcp.example"}, "https"),
        ({"url": "https://mcp.example", "transport": "stdio"}, "transport"),
        ({"url": "https://mcp.example/{region}"}, "no setting 'region'"),
        (
            {
                "url": "https://mcp.example?key={key}",
                "settings": [{"name": "key", "description": "k", "secret": True}],
            },
            "would be visible",
        ),
        (
            {
                "url": "https://mcp.example",
                "settings": [{"name": "unused", "description": "k"}],
            },
            "nowhere",
        ),
        (
            {
                "url": "https://mcp.example/{a}",
                "settings": [{"name": "a", "description": "k", "secret": True, "default": "x"}],
            },
            "no default",
        ),
        ({"url": "https://mcp.example", "source": {"url": "x", "date": "2026-11-24"}}, "pattern"),
        ({"url": "https://mcp.example", "name": "../x"}, "pattern"),
        ({"url": "https://mcp.example", "unknown": 1}, "Extra"),
    ],
)
def test_an_invalid_entry_is_rejected(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        made(**fields)


def test_a_search_puts_names_first_and_needs_every_word() -> None:
    assert matching(ALL, "github")[0].name == "github"
    assert "linear" in [each.name for each in matching(ALL, "issues")]
    assert matching(ALL, "github nothing-of-that-kind") == []
    assert len(matching(ALL, "")) == len(ALL)
