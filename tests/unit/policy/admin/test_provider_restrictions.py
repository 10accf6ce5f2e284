"""Providers over HTTP: no foreign secret, no local file, no new address for a stored key."""

from typing import Any

import pytest

from toolbus_common.admin_api.models import KINDS
from toolbus_common.config import Configuration
from toolbus_common.config_store import diff
from toolbus_common.config_store.redacted_view import entries, restored
from toolbus_common.errors import InvalidConfigurationError
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions
from toolbus_policy.admin.request_parser import with_entry

URL = "https://models.example/v1"


def configured(**fields: Any) -> Configuration:
    provider = {"kind": "openai", "url": URL, **fields}
    return Configuration.model_validate({"providers": {"far": provider}})


def violated(old: Configuration, new: Configuration, *variables: str) -> list[str]:
    found = RemoteRestrictions((), variables).violations(old, new)
    return [each["location"] for each in found]


def test_a_secret_reference_needs_permission() -> None:
    new = configured(key="${env:MODELS_KEY}", headers={"X": "${vault:kv/models#key}"})
    assert violated(Configuration(), new) == [
        "providers.far.headers.X",
        "providers.far.credentials.key",
    ]
    assert violated(Configuration(), new, "MODELS_*", "vault:kv/models#*") == []


@pytest.mark.parametrize(
    "moved",
    [
        {"url": "https://else.example/v1"},
        {"kind": "anthropic"},
        {"proxy": "http://proxy.example:3128"},
    ],
)
def test_a_declared_reference_does_not_move_to_another_address(moved: dict[str, str]) -> None:
    old = configured(key="${env:MODELS_KEY}")
    assert violated(old, configured(key="${env:MODELS_KEY}", timeout=5)) == []
    new = configured(key="${env:MODELS_KEY}", **moved)
    assert violated(old, new) == ["providers.far.credentials.key"]


def test_only_an_operator_configures_the_credentials_of_the_machine() -> None:
    fields = {"kind": "bedrock", "region": "eu-west-1"}
    kept = configured(**fields, ambient=True)
    before = configured(**fields, key="sk-stored")
    assert violated(before, kept) == ["providers.far.ambient"]
    assert violated(kept, configured(**fields, ambient=True, timeout=5)) == []
    moved = configured(**fields, ambient=True)
    moved.providers["far"] = moved.providers["far"].model_copy(
        update={"url": "https://else.example"}
    )
    assert violated(kept, moved) == ["providers.far.ambient"]


def test_a_stored_key_does_not_move_to_another_address() -> None:
    old = configured(key="sk-stored")
    assert restored(configured(key="(set)", timeout=5), old).providers["far"].credentials == {
        "key": "sk-stored"
    }
    with pytest.raises(InvalidConfigurationError, match=r"providers\.far\.credentials\.key"):
        restored(configured(key="(set)", url="https://else.example/v1"), old)


@pytest.mark.parametrize("field", ["ca", "certificate"])
def test_a_file_of_the_executors_machine_is_not_permitted(field: str) -> None:
    assert violated(Configuration(), configured(**{field: "/etc/hosts"}), "*") == [
        f"providers.far.{field}"
    ]


@pytest.mark.parametrize("url", ["http://169.254.169.254/v1", "http://[fd00:ec2::254]/v1"])
def test_an_address_that_executor_may_not_reach_is_not_permitted(url: str) -> None:
    assert violated(Configuration(), configured(url=url)) == ["providers.far.url"]


def test_a_key_is_never_shown() -> None:
    new = configured(key="sk-secret", headers={"X": "sk-secret"})
    assert "sk-secret" not in str(entries(new, "providers"))
    changed = diff.changes(configured(key="sk-other"), new)
    assert [change.name for change in changed] == ["far"]
    assert "sk-" not in str(changed[0])
    assert "sk-" not in repr(new)


@pytest.mark.parametrize(
    ("kind", "name", "entry"),
    [
        ("providers", "near", {"kind": "openai", "url": URL}),
        ("models", "gpt-5.1:fast", [{"provider": "far", "model": "m"}]),
        ("model_prices", "far/*", {"input": 1.0}),
    ],
)
def test_an_entry_about_models_is_managed_by_name(kind: str, name: str, entry: Any) -> None:
    assert kind in KINDS
    written = with_entry(configured(), kind, name, entry)
    assert name in getattr(written, kind)
    assert with_entry(written, kind, name, None) == configured()


def test_an_alias_of_an_unknown_provider_is_not_accepted() -> None:
    with pytest.raises(InvalidConfigurationError, match=r"no provider 'fra'.*'far'"):
        with_entry(configured(), "models", "fast", [{"provider": "fra", "model": "m"}])
