"""Literal secrets of a declaration: sealed for one service, at one place, for one destination."""

import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from harness.receivers.webhook_receiver import webhook_secret
from toolbus_common.config import Configuration
from toolbus_common.config_store.diff import changes
from toolbus_common.config_store.literal_secrets import (
    READERS,
    Reader,
    Writer,
    create_encryption_keys,
)
from toolbus_common.config_store.redacted_view import HIDDEN, exported, restored
from toolbus_common.secrets import SecretError, Secrets, stores_of

SECRET = "canary-of-a-literal"
HOOK_SECRET = webhook_secret("canary-of-a-literal-of-a-hook")
WHOLE: dict[str, Any] = {
    "servers": {
        "docs": {"url": "https://docs.example/mcp", "headers": {"X-Key": SECRET, "X-Empty": ""}},
        "git": {"command": ["git-mcp"], "env": {"TOKEN": SECRET, "OTHER": "${env:OTHER}"}},
        "pets": {"openapi": "https://pets.example/api", "credentials": {"key": f"u:{SECRET}"}},
    },
    "webhooks": {"told": {"url": "https://hook.example", "secret": HOOK_SECRET}},
    "issuers": {"corp": {"url": "https://id.example", "client_id": "toolbus", "secret": SECRET}},
    "sinks": {
        "siem": {"url": "https://siem.example", "headers": {"X-Key": SECRET}}
    },
    "exports": {
        "lake": {
            "to": "s3://lake/events", "region": "eu",
            "credentials": {"access_key": "a", "secret_key": SECRET},
        }
    },
    "evidence": {
        "checkpoints": {
            "to": "s3://lake/checkpoints", "region": "eu",
            "credentials": {"access_key": "a", "secret_key": SECRET},
        }
    },
}  # fmt: skip
NOTHING = Configuration()


def declared(**sections: Any) -> Configuration:
    return Configuration.model_validate_json(json.dumps(WHOLE | sections))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create_encryption_keys(tmp_path)
    return tmp_path


def test_literals_are_sealed_and_each_service_opens_its_own(keys: Path) -> None:
    whole = declared()
    sealed = Writer.at(keys).sealed(whole, NOTHING)
    written = sealed.model_dump_json()
    assert SECRET not in written
    assert HOOK_SECRET not in written
    assert "${env:OTHER}" in written
    read = Configuration.model_validate_json(written)
    opened = {service: Reader.at(service, keys).opened(read) for service in READERS}
    assert opened["executor"].servers == whole.servers
    audits = ("webhooks", "sinks", "exports", "evidence")
    assert all(getattr(opened["audit"], each) == getattr(whole, each) for each in audits)
    assert opened["oauth"].issuers == whole.issuers
    assert SECRET not in str(opened["oauth"].servers) + str(opened["executor"].webhooks)
    assert SECRET not in opened["oauth"].evidence.model_dump_json()


def test_an_unchanged_secret_keeps_its_seal(keys: Path) -> None:
    writer = Writer.at(keys)
    old = writer.sealed(declared(), NOTHING)
    assert changes(old, writer.sealed(declared(), old)) == []
    other = {**WHOLE["servers"], "docs": {**WHOLE["servers"]["docs"], "headers": {"X-Key": "new"}}}
    (change,) = changes(old, writer.sealed(declared(servers=other), old))
    assert str(change) == "~ servers.docs: headers changed"
    assert SECRET not in str(change)


def test_an_exported_configuration_keeps_every_seal_when_applied(keys: Path) -> None:
    writer = Writer.at(keys)
    old = writer.sealed(declared(), NOTHING)
    shown = exported(old)
    assert shown["servers"]["docs"]["headers"]["X-Key"] == HIDDEN
    assert "sealed:" not in str(shown)
    again = Configuration.model_validate_json(json.dumps(shown))
    assert changes(old, writer.sealed(restored(again, old), old)) == []


@pytest.mark.parametrize("move", ["server", "header", "url", "section"])
def test_a_seal_opens_at_its_location_and_destination_only(keys: Path, move: str) -> None:
    sealed = Writer.at(keys).sealed(declared(), NOTHING)
    docs = sealed.servers["docs"]
    stolen = docs.headers["X-Key"]
    servers = {
        "server": {"other": docs},
        "header": {"docs": docs.model_copy(update={"headers": {"X-Other": stolen}})},
        "url": {"docs": docs.model_copy(update={"url": "https://evil.example/mcp"})},
        "section": {"git": sealed.servers["git"].model_copy(update={"env": {"TOKEN": stolen}})},
    }[move]
    moved = sealed.model_copy(update={"servers": servers})
    assert SECRET not in Reader.at("executor", keys).opened(moved).model_dump_json()


async def test_a_value_that_does_not_open_is_unused_and_reported_with_a_fix(
    keys: Path, tmp_path: Path
) -> None:
    sealed = Writer.at(keys).sealed(declared(), NOTHING)
    opened = Reader.at("executor", tmp_path / "elsewhere").opened(sealed)
    value = opened.servers["docs"].headers["X-Key"]
    assert value == "${sealed:servers.docs.headers.X-Key}"
    with pytest.raises(SecretError, match=r"servers\.docs\.headers\.X-Key .* 'toolbus apply'"):
        await Secrets(stores_of({})).read([value])


def test_a_new_key_reseals_and_the_old_one_opens_until_then(keys: Path) -> None:
    old = Writer.at(keys).sealed(declared(), NOTHING)
    (keys / "executor.key").rename(keys / "executor.2025.key")
    (keys / "writers.json").unlink()
    whole = declared()
    assert Reader.at("executor", keys).opened(old).servers == whole.servers
    new = Writer.at(keys).sealed(whole, old)
    changed = {change.name for change in changes(old, new)}
    assert changed == {"docs", "git", "pets"}
    (keys / "executor.2025.key").unlink()
    assert Reader.at("executor", keys).opened(new).servers == whole.servers


@pytest.mark.parametrize("digests", ["", "AAAA", urlsafe_b64encode(bytes(40)).decode()])
def test_an_incomplete_key_of_digests_is_refused(keys: Path, digests: str) -> None:
    file = keys / "writers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"digests": digests}))
    with pytest.raises(ValueError, match="restore it from a backup"):
        Writer.at(keys)


def test_the_sealing_service_cannot_open(keys: Path) -> None:
    body = (keys / "writers.json").read_bytes()
    for service in READERS:
        key = (keys / f"{service}.key").read_bytes()
        assert key not in body
        assert urlsafe_b64encode(key) not in body
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys.iterdir())


def test_a_text_that_looks_sealed_is_a_literal_like_any_other(keys: Path) -> None:
    writer = Writer.at(keys)
    servers = {"docs": {"url": "https://docs.example/mcp", "headers": {"X": "sealed:v1:a:b:c"}}}
    sealed = writer.sealed(declared(servers=servers), NOTHING)
    opened = Reader.at("executor", keys).opened(sealed)
    assert opened.servers["docs"].headers["X"] == "sealed:v1:a:b:c"
