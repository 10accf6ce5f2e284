"""Configured issuers: validation, their secret in the redacted view, changes over HTTP."""

import pytest

from harness.builders.configurations import configured
from toolbus_common.config import OWN_ISSUERS, Configuration
from toolbus_common.config_store.loading.loader import load
from toolbus_common.config_store.redacted_view import HIDDEN, exported, restored
from toolbus_common.errors import InvalidConfigurationError
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions

CORP = {"url": "https://login.test", "client_id": "c", "secret": "${env:CORP}"}


def test_access_rules_with_unknown_issuers_or_teams_are_problems() -> None:
    text = (
        "issuers: {corp: {url: 'https://login.test'}}\n"
        "access:\n  a: {issuer: cropp, tools: ['*']}\n  b: {team: none, tools: ['*']}\n"
        "  c: {issuer: corp, tools: ['*']}\n  d: {issuer: machines, tools: ['*']}\n"
    )
    items = [(problem.path, problem.line) for problem in load(text, {}).problems]
    assert items == [("access.a.issuer", 3), ("access.b.team", 4)]


@pytest.mark.parametrize("name", OWN_ISSUERS)
def test_an_issuer_cannot_have_a_reserved_name(name: str) -> None:
    (problem,) = load(f"issuers: {{{name}: {{url: 'https://login.test'}}}}\n", {}).problems
    assert problem.path == f"issuers.{name}"
    assert "reserved for Toolbus" in problem.message


def test_an_issuers_secret_is_hidden_and_restored_only_for_the_same_url() -> None:
    old = configured(issuers={"corp": {**CORP, "secret": "literal-secret"}})
    shown = exported(old)["issuers"]["corp"]
    assert shown["secret"] == HIDDEN
    again = restored(configured(issuers={"corp": shown}), old)
    assert again.issuers["corp"].secret == "literal-secret"
    elsewhere = configured(issuers={"corp": {**shown, "url": "https://evil.test"}})
    with pytest.raises(InvalidConfigurationError):
        restored(elsewhere, old)


def test_an_issuers_secret_and_address_over_http_need_permission() -> None:
    def places(new: Configuration, old: Configuration, *variables: str) -> list[str]:
        return [
            problem["location"]
            for problem in RemoteRestrictions((), variables).violations(old, new)
        ]

    corp = configured(issuers={"corp": CORP})
    assert places(corp, configured()) == ["issuers.corp.secret"]
    assert places(corp, configured(), "CORP") == []
    moved = configured(issuers={"corp": {**CORP, "url": "https://evil.test"}})
    assert places(moved, corp) == ["issuers.corp.secret"]
    inside = configured(issuers={"corp": {**CORP, "url": "http://127.0.0.1:9"}})
    assert places(inside, corp, "CORP") == ["issuers.corp.url"]
