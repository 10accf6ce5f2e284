"""Which guards apply to a call: those of every attachment together, and nothing removes one."""

from time import time
from typing import Any

import pytest

from harness.builders.configurations import listing_of
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import TOOLS_CALL
from toolbus_common.contracts.agent_runs import AGENT, AGENT_RUN
from toolbus_common.contracts.model_calls import CHAT, COUNT_TOKENS, EMBEDDINGS
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.ledger.admitted_call import Admission

KEY_DIGEST = key_digest_of("tbk_bot_0123456789abcdef")
EVERY = ["arguments", "results", "prompts", "completions"]
# The attachments of guards; each is named like its guard.
ATTACHED: dict[str, Any] = {
    "customer": {"customers": {"acme": {"guards": ["customer"]}}},
    "team": {"teams": {"ops": {"guards": ["team"]}}},
    "user": {"users": {"ann": {"guards": ["user"]}}},
    "key": {"keys": {"bot": {"guards": ["key"]}}},
    "group": {"groups": {"readers": {"guards": ["group"]}}},
    "server": {"servers": {"docs": {"guards": ["server"]}}},
    "tool": {"servers": {"docs": {"tools": {"search": {"guards": ["tool"]}}}}},
    "provider": {"providers": {"local": {"guards": ["provider"]}}},
    "model": {"model_guards": {"local/gem*": ["model"]}},
    "alias": {"model_guards": {"fast": ["alias"]}},
    "always": {"guards": {"always": {"always": True}}},
}
OF_CALLERS = {"customer", "team", "user", "key", "group", "always"}
OF_TOOLS = OF_CALLERS | {"server", "tool"}
OF_MODELS = OF_CALLERS | {"provider", "model", "alias"}


def merged(one: Any, other: Any) -> Any:
    """Return two nested configurations as one."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            name: merged(one[name], other[name]) if name in one and name in other
            else (one | other)[name]
            for name in {**one, **other}
        }  # fmt: skip
    return other


def configured(*attachments: str, on: list[str] = EVERY, more: Any = None) -> Authorizer:
    declared: Any = {
        "customers": {"acme": {}},
        "teams": {"ops": {"customer": "acme"}},
        "users": {"ann": {"customer": "acme"}},
        "groups": {"readers": {"tools": ["*"], "models": ["*"]}},
        "servers": {
            "docs": {"url": "http://127.0.0.1:1/mcp"},
            "other": {"url": "http://127.0.0.1:1/mcp"},
        },
        "providers": {
            "local": {"kind": "openai", "url": "http://127.0.0.1:1/v1", "unpriced": True}
        },
        "models": {"fast": [{"provider": "local", "model": "gemma"}]},
        "keys": {
            "bot": {
                "secret_hash": hash_of(KEY_DIGEST), "team": "ops", "user": "ann",
                "groups": ["readers"], "agent": {},
            }
        },
        "guards": {name: {"kind": "secrets", "on": on} for name in ATTACHED},
    }  # fmt: skip
    for each in attachments:
        declared = merged(declared, ATTACHED[each])
    snapshot = ConfigSnapshot.of(Configuration.model_validate(merged(declared, more or {})))
    listings = {name: listing_of(name, "search", "read") for name in ("docs", "other")}
    return Authorizer(snapshot, listings)


def admitted(
    decides: Authorizer, server: str = "docs", tool: str = "search", method: str = TOOLS_CALL
) -> Admission:
    return decides.authorize(KEY_DIGEST, server, method, tool, time())


def checking(*call: Any) -> set[str]:
    guards = admitted(*call).guards
    return {*guards.checking} if guards is not None else set()


@pytest.mark.parametrize("name", sorted(OF_TOOLS))
def test_each_attachment_applies_to_a_tool_call(name: str) -> None:
    assert checking(configured(name)) == {name}


@pytest.mark.parametrize("method", [CHAT, EMBEDDINGS, COUNT_TOKENS])
@pytest.mark.parametrize("name", sorted(OF_MODELS))
def test_each_attachment_applies_to_a_model_request(name: str, method: str) -> None:
    decides = configured(name)
    assert checking(decides, "local", "gemma", method) == {name}
    found = admitted(decides, "local", "gemma", method).guards
    assert found is not None
    assert (found.phase, found.later) == ("prompts", (name,))


def test_all_attachments_add_up() -> None:
    decides = configured(*ATTACHED)
    assert checking(decides) == OF_TOOLS
    assert checking(decides, "local", "gemma", CHAT) == OF_MODELS
    assert checking(decides, "docs", "read") == OF_TOOLS - {"tool"}
    assert checking(decides, "other", "search") == OF_CALLERS
    assert checking(decides, BUILT_IN, AGENT, AGENT_RUN) == OF_CALLERS


@pytest.mark.parametrize("name", sorted(OF_TOOLS))
@pytest.mark.parametrize("below", ["keys.bot", "users.ann", "teams.ops", "customers.acme"])
def test_no_level_removes_a_guard_of_another(name: str, below: str) -> None:
    section, entry = below.split(".")
    fields: Any = {"guards": [section.removesuffix("s"), "always"]}
    assert (
        name in checking(configured(name, more={section: {entry: fields}})) or name == section[:-1]
    )


def test_a_call_without_guards_has_none() -> None:
    assert admitted(configured()).guards is None
    assert admitted(configured("server"), "other").guards is None
    assert admitted(configured("server", on=["definitions"])).guards is None


def test_guards_of_results_are_left_to_executor() -> None:
    found = admitted(configured("key", on=["results", "completions"])).guards
    assert found is not None
    assert (found.checking, found.later, found.has_placeholders) == ((), ("key",), False)


def test_executor_learns_which_guards_restore_values_for_a_tool() -> None:
    redacting = {"action": "redact", "restore": ["docs__read"], "on": ["prompts"]}
    decides = configured(more={"guards": {"alias": redacting}})
    found = admitted(decides, "docs", "read").guards
    assert found is not None
    assert (found.checking, found.later, found.has_placeholders) == ((), ("alias",), True)
    assert admitted(decides, "docs", "search").guards is None


def test_a_guard_that_is_not_configured_applies_so_that_its_check_fails() -> None:
    assert checking(configured(more={"keys": {"bot": {"guards": ["deleted"]}}})) == {"deleted"}


def test_every_method_that_sends_something_to_a_server_is_checked() -> None:
    decides = configured("key")
    for method in (
        "resources/read", "resources/subscribe", "completion/complete", "tasks/update",
        "tasks/get", "tasks/result", "tasks/cancel",
    ):  # fmt: skip
        assert checking(decides, "docs", "search", method) == {"key"}
