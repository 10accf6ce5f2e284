"""The guards of every level, group, server and tool add up, each with what attached it."""

from typing import Any

import pytest

from toolbus_common.access.principal import Principal, principal_of
from toolbus_common.config import Configuration
from toolbus_common.contracts.model_calls import CHAT
from toolbus_common.guards.attachment import attached, phases_of

KINDS = {
    name: {"kind": "secrets", "on": ["arguments", "results"]}
    for name in ("a", "b", "c", "d", "e", "f", "g")
}
PROMPTS = {"kind": "pii", "on": ["prompts"]}
BASE: dict[str, Any] = {
    "guards": {**KINDS, "p": PROMPTS, "q": PROMPTS, "r": PROMPTS},
    "servers": {
        "docs": {"url": "http://d.example", "guards": ["f"], "tools": {"find": {"guards": ["g"]}}}
    },
    "groups": {"readers": {"tools": ["docs__*"], "guards": ["e"]}},
    "customers": {"acme": {"guards": ["a"]}},
    "teams": {"ops": {"customer": "acme", "guards": ["b"]}},
    "users": {"ann": {"guards": ["c"]}},
    "keys": {"bot": {"team": "ops", "user": "ann", "groups": ["readers"], "guards": ["d", "a"]}},
}


def principal(**sections: Any) -> Principal:
    declared = Configuration.model_validate({**BASE, **sections})
    return principal_of("bot", declared.keys["bot"], declared)


def test_guards_of_all_levels_add_up_and_each_names_what_attached_it() -> None:
    assert attached(principal(), "docs", "find", "tools/call") == {
        "a": ("key:bot", "customer:acme"),
        "b": ("team:ops",),
        "c": ("user:ann",),
        "d": ("key:bot",),
        "e": ("group:readers",),
        "f": ("server:docs",),
        "g": ("tool:docs__find",),
    }


def test_the_guards_of_a_tool_do_not_apply_to_another_tool_or_server() -> None:
    assert "g" not in attached(principal(), "docs", "other", "tools/call")
    assert not {"f", "g"} & attached(principal(), "elsewhere", "find", "tools/call").keys()


def test_a_guard_that_always_applies_needs_no_attachment() -> None:
    guards = {"all": {"kind": "secrets", "on": ["results"], "always": True}, **BASE["guards"]}
    found = attached(principal(guards=guards), "elsewhere", "x", "tools/call")
    assert found["all"] == ("always",)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("haiku", {"p": ("provider:claude",), "q": ("model:fast",), "r": ("model:claude/h*",)}),
        ("opus", {"p": ("provider:claude",)}),
    ],
)
def test_models_have_the_guards_of_their_provider_their_name_and_their_alias(
    model: str, expected: dict[str, tuple[str, ...]]
) -> None:
    found = principal(
        providers={"claude": {"kind": "anthropic", "key": "k", "guards": ["p", "f"]}},
        models={"fast": [{"provider": "claude", "model": "haiku"}]},
        model_guards={"fast": ["q"], "claude/h*": ["r"]},
    )
    assert attached(found, "claude", model, CHAT) == expected


def test_each_method_has_a_phase_before_and_after_the_call() -> None:
    assert phases_of("tools/call") == ("arguments", "results")
    assert phases_of(CHAT) == ("prompts", "completions")
