"""What an approver sees of arguments that a guard asked about."""

import json

from toolbus_common.config import Guard
from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_policy.guards.hidden_matches import UNREADABLE, without_matches

TOKEN = "ghp_" + "aB3dE5gH7jK9" * 3
OTHER = "ghp_" + "zY3dE5gH7jK8" * 3
GUARDS = {
    "ask": Guard(kind="secrets", on=("arguments",), action="ask"),
    "mail": Guard(kind="pii", on=("arguments",), action="ask"),
    "far": Guard(kind="http", url="https://g.example", on=("arguments",), action="ask"),
}


def check(guard: str, verdict: str = "asked") -> GuardCheck:
    return GuardCheck.model_validate({"guard": guard, "phase": "arguments", "verdict": verdict})


def shown(arguments: object, *checks: GuardCheck) -> object:
    return json.loads(without_matches(GUARDS, checks, json.dumps(arguments).encode()))


def test_equal_values_have_equal_marks_and_different_ones_do_not() -> None:
    found = shown({"a": f"x {TOKEN}", "b": TOKEN, TOKEN: 1, "c": OTHER}, check("ask"))
    one, two = "[hidden:github-pat 1]", "[hidden:github-pat 2]"
    assert found == {"a": f"x {one}", "b": one, one: 1, "c": two}


def test_every_asking_guard_hides_its_matches_and_no_other() -> None:
    text = {"a": f"{TOKEN} ada@example.com"}
    both = shown(text, check("ask"), check("mail"))
    assert both == {"a": "[hidden:github-pat 1] [hidden:email 2]"}
    assert shown(text, check("ask", "flagged"), check("far"), check("gone")) == text


def test_unreadable_arguments_are_hidden_as_a_whole() -> None:
    assert without_matches(GUARDS, [check("ask")], b'{"a":') == UNREADABLE
