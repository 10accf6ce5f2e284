"""Access rules: which one matches a person, and the name a person gets."""

from typing import Any

import pytest
from pydantic import ValidationError

from harness.builders.configurations import configured
from toolbus_oauth.accounts.access_rules import matching_rule, user_name


def test_the_first_matching_rule_applies() -> None:
    access = {
        "admins": {"claims": {"groups": ["admin", "root"]}, "tools": ["*"]},
        "verified": {"claims": {"groups": "staff", "email": "a@example.org"}, "tools": ["a__*"]},
        "staff": {"claims": {"groups": "staff"}, "tools": ["b__*"]},
        "corp": {"issuer": "corp", "tools": ["c__*"]},
    }
    made = configured(access=access)
    fields = {"groups": ["staff", "root"], "email": "a@example.org"}
    assert matching_rule(made, "local", fields) == "admins"
    assert matching_rule(made, "local", {**fields, "groups": ["staff"]}) == "verified"
    assert matching_rule(made, "local", {"groups": "staff", "email": ["b@example.org"]}) == "staff"
    assert matching_rule(made, "corp", {}) == "corp"
    for unmatched in ({}, {"groups": True}, {"groups": None}, {"groups": {"staff": 1}}):
        assert matching_rule(made, "local", unmatched) is None
    assert matching_rule(made, "machines", fields) is None


def test_only_an_issuer_with_a_user_claim_may_use_declared_names() -> None:
    naming = {"user": "login"}
    issuers = {
        name: {"url": f"https://{name}.test", **more}
        for name, more in {"plain": {}, "corp": naming, "else": naming}.items()
    }
    made = configured(issuers=issuers, users={"ann": {}})
    assert user_name(made, "local", {"sub": "ann"}) == "ann"
    assert user_name(made, "corp", {"sub": "1", "login": "ann"}) == "ann"
    assert user_name(made, "plain", {"sub": "ann", "login": "ann"}) == "plain/ann"
    odd = user_name(made, "corp", {"sub": "a|b c", "login": "x:y\n"})
    assert odd.startswith("corp/")
    assert odd.removeprefix("corp/").isalnum()
    both = {user_name(made, each, {"sub": "1", "login": "bo"}) for each in ("corp", "else")}
    assert both == {"corp/bo", "else/bo"}, "an undeclared name is a different person at each issuer"


@pytest.mark.parametrize(
    ("section", "entry"),
    [
        ("access", {"tools": ["*"], "budget": {"usd": 1, "per": "day"}}),
        ("access", {"tools": ["*"], "user": "ann"}),
        ("issuers", {"url": "https://i.test", "client_id": "c", "audience": "c"}),
        ("issuers", {"url": "https://i.test", "algorithms": ["none"]}),
        ("issuers", {"url": "https://i.test", "algorithms": ["HS256"]}),
        ("issuers", {"url": "https://i.test", "algorithms": []}),
        ("issuers", {"url": "ftp://i.test"}),
    ],
)
def test_rules_and_issuers_that_would_grant_too_much_are_rejected(section: str, entry: Any) -> None:
    with pytest.raises(ValidationError):
        configured(**{section: {"x": entry}})
