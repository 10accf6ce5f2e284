"""Bindings of approvals: any difference gives another binding."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.builders.calls import requested_call
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    CatalogEntry,
    Listing,
    ServerState,
)
from toolbus_policy.approvals.fingerprint import binding_of, definition_digest, policy_digest

FIELDS = ("key", "server", "tool", "method", "arguments", "definition", "policy")
parts = st.fixed_dictionaries(
    {name: st.text(max_size=12) for name in FIELDS if name != "arguments"}
    | {"arguments": st.binary(max_size=24)}
)


def bound(part: dict[str, Any]) -> str:
    called = {name: part[name] for name in ("server", "tool", "method", "arguments")}
    call = requested_call(**called)
    return binding_of(call, part["key"], part["definition"], part["policy"])


@given(parts, parts)
def test_two_calls_share_a_binding_only_if_equal_in_everything(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert (bound(one) == bound(other)) == (one == other)


@given(parts, st.sampled_from(FIELDS), st.data())
def test_any_one_change_is_another_binding(
    part: dict[str, Any], name: str, data: st.DataObject
) -> None:
    other = data.draw(st.binary() if name == "arguments" else st.text())
    assume(other != part[name])
    assert bound({**part, name: other}) != bound(part)


@given(parts, st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_byte_of_the_arguments_is_bound(part: dict[str, Any], at: int, flip: int) -> None:
    arguments = bytearray(part["arguments"])
    assume(arguments)
    arguments[at % len(arguments)] ^= flip
    assert bound({**part, "arguments": bytes(arguments)}) != bound(part)


@given(st.text(min_size=1, max_size=6), st.integers(min_value=1))
def test_text_moved_between_fields_changes_the_binding(text: str, at: int) -> None:
    part = dict.fromkeys(FIELDS, "") | {"arguments": b""}
    cut = at % len(text)
    one, other = {"server": text, "tool": ""}, {"server": text[:cut], "tool": text[cut:]}
    assert bound({**part, **one}) != bound({**part, **other})


def test_the_binding_does_not_change_from_call_to_call() -> None:
    part = dict.fromkeys(FIELDS, "x") | {"arguments": b"{}"}
    assert bound(part) == bound(dict(part))


def listing(**definition: Any) -> Listing:
    tool = {"name": "burn", "description": "Burns.", "inputSchema": {"type": "object"}}
    offered = CatalogEntry(name="burn", definition={**tool, **definition})
    return Listing(server="docs", state=ServerState.READY, tools=(offered,))


@pytest.mark.parametrize(
    "change",
    [
        {"description": "Burns!"},
        {"description": "Burns.\u200b"},
        {"inputSchema": {"type": "object", "required": []}},
        {"annotations": {"destructiveHint": False}},
        {"_meta": {"a": 1}},
        {"title": ""},
    ],
)
def test_any_change_of_the_definition_is_another_digest(change: dict[str, Any]) -> None:
    assert definition_digest(listing(**change), "burn") != definition_digest(listing(), "burn")


def test_the_order_of_a_definitions_members_does_not_matter() -> None:
    (offered,) = listing().tools
    turned = dict(reversed(offered.definition.items()))
    again = Listing(
        server="docs",
        state=ServerState.READY,
        tools=(CatalogEntry(name="burn", definition=turned),),
    )
    assert definition_digest(again, "burn") == definition_digest(listing(), "burn")


def test_an_unlisted_name_has_no_digest() -> None:
    assert definition_digest(listing(), "other") == ""
    assert definition_digest(None, "burn") == ""


DECLARED: dict[str, Any] = {
    "servers": {"docs": {"url": "https://docs.example/mcp"}, "git": {"command": ["git-mcp"]}},
    "groups": {"few": {"tools": ["docs__*"]}, "other": {"tools": ["git__*"]}},
    "customers": {"acme": {}},
    "teams": {"ops": {"customer": "acme", "groups": ["few"]}, "dev": {}},
    "keys": {"bot": {"team": "ops", "tools": ["*"], "approve": ["docs__burn"]}, "cat": {}},
    "rules": {"careful": {"cedar": "forbid (principal, action, resource);"}},
}


def policy(**changes: Any) -> str:
    declared = Configuration.model_validate({**DECLARED, **changes})
    snapshot = ConfigSnapshot.of(declared)
    return policy_digest(snapshot.principal("bot"), declared, "docs")


@pytest.mark.parametrize(
    "change",
    [
        {"keys": {"bot": {"team": "ops", "tools": ["*"], "approve": ["docs__*"]}}},
        {"keys": {"bot": {"team": "ops", "tools": ["docs__*"], "approve": ["docs__burn"]}}},
        {"keys": {"bot": {"team": "dev", "tools": ["*"], "approve": ["docs__burn"]}}},
        {"teams": {"ops": {"customer": "acme", "groups": ["few"], "deny": ["docs__x"]}}},
        {"teams": {"ops": {"customer": "acme", "groups": ["few"], "environment": "production"}}},
        {"groups": {"few": {"tools": ["docs__read"]}}},
        {"servers": {"docs": {"url": "https://elsewhere.example/mcp"}}},
        {"rules": {}},
        {"labels": {"docs__burn": ["sink"]}},
    ],
)
def test_a_relevant_policy_change_changes_the_digest(change: dict[str, Any]) -> None:
    assert policy(**change) != policy()


@pytest.mark.parametrize(
    "change",
    [
        {"keys": {**DECLARED["keys"], "new": {"tools": ["*"]}}},
        {"keys": {"bot": {**DECLARED["keys"]["bot"], "secret_hash": "ab" * 32}}},
        {"keys": {"bot": {**DECLARED["keys"]["bot"], "budget": {"usd": 5, "per": "day"}}}},
        {"groups": {**DECLARED["groups"], "other": {"tools": ["docs__*"]}}},
        {"servers": {**DECLARED["servers"], "git": {"command": ["other"]}}},
        {"servers": {"docs": {"url": "https://docs.example/mcp", "timeout": 5}}},
        {"prices": {"docs__burn": 1}},
    ],
)
def test_an_irrelevant_policy_change_keeps_the_digest(change: dict[str, Any]) -> None:
    assert policy(**change) == policy()
