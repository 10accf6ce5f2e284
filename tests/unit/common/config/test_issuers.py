"""Configured issuers: validation, their secret in the redacted view, changes over HTTP."""

from typing import Any

import pytest

from toolbus_common.config import OWN_ISSUERS, Configuration
from toolbus_common.config_store.loading.loader import load
from toolbus_common.config_store.redacted_view import HIDDEN, exported, restored
from toolbus_common.errors import FaultyError
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions


def declared(**sections: Any) -> Configuration:
    return Configuration.model_validate(sections)


CORP = {"url": "https://login.test", "client_id": "c", "secret": "${env:CORP}"}


def test_rules_for_people_nobody_vouches_for_are_faults() -> None:
    text = (
        "issuers: {corp: {url: 'https://login.test'}}\n"
        "access:\n  a: {issuer: cropp, tools: ['*']}\n  b: {team: none, tools: ['*']}\n"
        "  c: {issuer: corp, tools: ['*']}\n  d: {issuer: machines, tools: ['*']}\n"
    )
    items = [(fault.path, fault.line) for fault in load(text, {}).problems]
    assert items == [("access.a.issuer", 3), ("access.b.team", 4)]


@pytest.mark.parametrize("name", OWN_ISSUERS)
def test_nobody_else_vouches_under_the_names_of_our_own_accounts_and_machines(name: str) -> None:
    (fault,) = load(f"issuers: {{{name}: {{url: 'https://login.test'}}}}\n", {}).problems
    assert fault.path == f"issuers.{name}"
    assert "reserved for Toolbus" in fault.message


def test_an_issuers_secret_is_not_shown_and_kept_only_for_whom_it_was_given_to() -> None:
    old = declared(issuers={"corp": {**CORP, "secret": "literal-secret"}})
    shown = exported(old)["issuers"]["corp"]
    assert shown["secret"] == HIDDEN
    again = restored(declared(issuers={"corp": shown}), old)
    assert again.issuers["corp"].secret == "literal-secret"
    elsewhere = declared(issuers={"corp": {**shown, "url": "https://evil.test"}})
    with pytest.raises(FaultyError):
        restored(elsewhere, old)


def test_over_http_no_issuer_takes_a_secret_or_an_address_that_was_not_allowed() -> None:
    def places(new: Configuration, old: Configuration, *variables: str) -> list[str]:
        return [fault["place"] for fault in RemoteRestrictions((), variables).violations(old, new)]

    corp = declared(issuers={"corp": CORP})
    assert places(corp, declared()) == ["issuers.corp.secret"]
    assert places(corp, declared(), "CORP") == []
    moved = declared(issuers={"corp": {**CORP, "url": "https://evil.test"}})
    assert places(moved, corp) == ["issuers.corp.secret"]
    inside = declared(issuers={"corp": {**CORP, "url": "http://127.0.0.1:9"}})
    assert places(inside, corp, "CORP") == ["issuers.corp.url"]
