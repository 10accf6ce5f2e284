"""Authorization: deny by default, hidden means unknown, grants intersect, limits add up."""

from datetime import date
from time import time
from typing import Any

import pytest

from harness.builders.configurations import listing_of
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of, key_digest_of
from toolbus_common.access.pricing import cost_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import TOOLS_CALL, Listing, Quarantined, ServerState
from toolbus_common.errors import UnauthorizedError, UnknownToolError, UpstreamDeadError
from toolbus_common.mcp.result_uris import Handle
from toolbus_policy.admission.authorizer import Authorizer, payer_of

SECRET = "tbk_bot_0123456789abcdef"
KEY_DIGEST = key_digest_of(SECRET)


def snapshot(key: dict[str, Any], **sections: Any) -> ConfigSnapshot:
    declared = {
        "servers": {"docs": {"url": "http://127.0.0.1:1/mcp"}},
        "keys": {"bot": {"secret_hash": hash_of(KEY_DIGEST), **key}},
        **sections,
    }
    configuration = Configuration.model_validate(declared)
    return ConfigSnapshot.of(configuration)


def authorizer(key: dict[str, Any], **sections: Any) -> Authorizer:
    listing = listing_of("docs", "search", "delete", prompts=["search"])
    return Authorizer(snapshot(key, **sections), {"docs": listing, "undeclared": listing})


def test_a_granted_tool_is_admitted() -> None:
    admission = authorizer({"tools": ["docs__*"]}).authorize(
        KEY_DIGEST, "docs", TOOLS_CALL, "search", time()
    )
    assert admission.payer.key == "bot"


@pytest.mark.parametrize(
    ("grants", "server", "method", "message"),
    [
        ([], "docs", TOOLS_CALL, "Unknown tool: docs__search"),
        (["*"], "undeclared", TOOLS_CALL, "Unknown tool: undeclared__search"),
        (["*"], "docs", "sampling/createMessage", "Unknown"),
    ],
    ids=["not granted", "undeclared server", "unknown method"],
)
def test_a_call_without_grant_server_or_method_is_unknown(
    grants: list[str], server: str, method: str, message: str
) -> None:
    with pytest.raises(UnknownToolError, match=message):
        authorizer({"tools": grants}).authorize(KEY_DIGEST, server, method, "search", time())


def test_a_hidden_tool_and_an_unknown_one_get_the_same_error() -> None:
    decide = authorizer({"tools": ["docs__search"]}).authorize
    result = []
    for tool in ("delete", "nonsense"):
        with pytest.raises(UnknownToolError) as caught:
            decide(KEY_DIGEST, "docs", TOOLS_CALL, tool, time())
        result.append(caught.value.reason.replace(tool, "X"))
    assert result[0] == result[1]


def test_a_tool_hidden_by_the_configuration_is_unknown_with_any_grant() -> None:
    server = {"url": "http://127.0.0.1:1/mcp", "tools": {"delete": {"hidden": True}}}
    decide = authorizer({"tools": ["*"]}, servers={"docs": server}).authorize
    decide(KEY_DIGEST, "docs", TOOLS_CALL, "search", time())
    with pytest.raises(UnknownToolError, match="Unknown tool: docs__delete"):
        decide(KEY_DIGEST, "docs", TOOLS_CALL, "delete", time())


@pytest.mark.parametrize("state", [None, ServerState.CONNECTING, ServerState.FAILED])
def test_only_a_granted_name_shows_that_its_server_is_not_connected_yet(
    state: ServerState | None,
) -> None:
    servers = {
        "docs": {"url": "http://127.0.0.1:1/mcp"},
        "late": {"url": "http://127.0.0.1:2/mcp", "tools": {"delete": {"hidden": True}}},
    }
    key = {"tools": ["late__*"], "deny": ["late__drop"]}
    listings = {} if state is None else {"late": Listing(server="late", state=state)}
    decide = Authorizer(snapshot(key, servers=servers), listings).authorize
    with pytest.raises(UpstreamDeadError, match="'late' has not listed its tools yet") as caught:
        decide(KEY_DIGEST, "late", TOOLS_CALL, "search", time())
    assert caught.value.retryable
    for server, tool in [("late", "delete"), ("late", "drop"), ("docs", "nonsense")]:
        with pytest.raises(UnknownToolError):
            decide(KEY_DIGEST, server, TOOLS_CALL, tool, time())


def test_an_alias_does_not_change_what_is_granted_or_charged() -> None:
    server = {"url": "http://127.0.0.1:1/mcp", "tools": {"search": {"alias": "find"}}}
    sections = {"servers": {"docs": server}, "prices": {"docs__search": 1, "docs__find": 2}}
    admission = authorizer({"tools": ["docs__search"]}, **sections).authorize(
        KEY_DIGEST, "docs", TOOLS_CALL, "search", time()
    )
    assert admission.charge == 1_000_000


def test_a_team_limits_its_keys() -> None:
    decide = authorizer(
        {"tools": ["*"], "team": "ops"}, teams={"ops": {"tools": ["docs__search"]}}
    ).authorize
    decide(KEY_DIGEST, "docs", TOOLS_CALL, "search", time())
    with pytest.raises(UnknownToolError):
        decide(KEY_DIGEST, "docs", TOOLS_CALL, "delete", time())


@pytest.mark.parametrize(
    ("digest", "key"),
    [
        (KEY_DIGEST, {"revoked": True}),
        (KEY_DIGEST, {"expires": date(2020, 1, 1)}),
        (hash_of(KEY_DIGEST), {}),
    ],
    ids=["revoked", "expired", "stored hash as digest"],
)
def test_a_revoked_expired_or_unknown_key_is_rejected(digest: str, key: dict[str, Any]) -> None:
    with pytest.raises(UnauthorizedError):
        authorizer({"tools": ["*"], **key}).authorize(digest, "docs", TOOLS_CALL, "search", time())


def test_a_key_on_its_last_day_is_accepted() -> None:
    found = authorizer({"tools": ["*"], "expires": date(2026, 1, 1)})
    last_second = 1767311999.0  # 2026-01-01T23:59:59Z
    found.authorize(KEY_DIGEST, "docs", TOOLS_CALL, "search", last_second)
    with pytest.raises(UnauthorizedError):
        found.authorize(KEY_DIGEST, "docs", TOOLS_CALL, "search", last_second + 1)


def test_limits_of_every_level_add_up() -> None:
    budget = {"usd": 1, "per": "day"}
    found = snapshot(
        {"team": "ops", "budget": budget},
        teams={"ops": {"customer": "acme", "budget": budget}},
        customers={"acme": {"budget": budget, "rate": {"calls": 1, "per": "hour"}}},
    )
    principal = payer_of(found.principal("bot"))
    assert [limit.level for limit in principal.budgets] == ["key:bot", "team:ops", "customer:acme"]
    assert [limit.level for limit in principal.rates] == ["customer:acme"]
    assert principal.customer == "acme"


def test_a_free_call_needs_no_budget() -> None:
    found = authorizer({"tools": ["*"], "budget": {"usd": 0, "per": "day"}})
    assert found.authorize(KEY_DIGEST, "docs", TOOLS_CALL, "search", time()).budgets == ()


@pytest.mark.parametrize(
    ("name", "micro"),
    [("docs__search", 2000), ("docs__delete", 5000), ("git__log", 1), ("x", 1)],
)
def test_the_nearest_price_applies(name: str, micro: int) -> None:
    prices = {"docs__search": 0.002, "docs__*": 0.005, "*": 0.000001}
    assert cost_of(name, prices).reserved == micro


def test_a_tool_without_a_price_is_free() -> None:
    assert cost_of("docs__search", {}).reserved == 0


def test_a_prompt_must_be_listed_and_granted_like_a_tool() -> None:
    decide = authorizer({"tools": ["docs__*"]}).authorize
    assert decide(KEY_DIGEST, "docs", "prompts/get", "search", time()).charge == 0
    with pytest.raises(UnknownToolError, match="Unknown prompt: docs__delete"):
        decide(KEY_DIGEST, "docs", "prompts/get", "delete", time())


def test_a_resource_need_not_be_listed_but_must_be_granted() -> None:
    read = "resources/read"
    found = authorizer({"tools": ["docs__file:///public/*"]}).authorize
    assert found(KEY_DIGEST, "docs", read, "file:///public/a", time()).payer.key == "bot"
    with pytest.raises(UnknownToolError, match="Unknown resource: file:///etc/passwd"):
        found(KEY_DIGEST, "docs", read, "file:///etc/passwd", time())


def test_only_tools_have_a_price() -> None:
    found = authorizer({"tools": ["*"]}, prices={"*": 1}).authorize
    assert found(KEY_DIGEST, "docs", TOOLS_CALL, "search", time()).charge == 1_000_000
    for method in ("prompts/get", "resources/read", "completion/complete", "tasks/get"):
        assert found(KEY_DIGEST, "docs", method, "search", time()).charge == 0


def test_a_quarantined_prompt_has_no_completion() -> None:
    # The definition is not approved, so nothing is sent to its server.
    held = Quarantined(kind="prompts", name="fill", definition={"name": "fill"})
    tool = Quarantined(kind="tools", name="x://y", definition={"name": "x://y"})
    listing = Listing(server="docs", state=ServerState.READY, quarantined=(held, tool))
    found = Authorizer(snapshot({"tools": ["*"]}), {"docs": listing}).authorize
    for method in ("prompts/get", "completion/complete"):
        with pytest.raises(UnknownToolError):
            found(KEY_DIGEST, "docs", method, "fill", time())
    found(KEY_DIGEST, "docs", "completion/complete", "x://y", time())


def test_a_call_that_needs_approval_names_the_level() -> None:
    found = authorizer({"tools": ["*"], "team": "ops"}, teams={"ops": {"approve": ["docs__s*"]}})
    assert found.authorize(KEY_DIGEST, "docs", TOOLS_CALL, "search", time()).cause == "team:ops"
    assert (
        authorizer({"tools": ["*"]})
        .authorize(KEY_DIGEST, "docs", TOOLS_CALL, "search", time())
        .cause
        == ""
    )


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "completion/complete"])
def test_a_follow_up_of_a_call_needs_no_second_approval(method: str) -> None:
    found = authorizer({"tools": ["*"], "approve": ["docs__*"]})
    assert found.authorize(KEY_DIGEST, "docs", method, "search", time()).cause == ""
    assert found.authorize(KEY_DIGEST, "docs", "resources/read", "x://y", time()).cause == "key:bot"


def test_a_stored_result_requires_the_grant_for_its_tool() -> None:
    uri = Handle("docs", "search", "a" * 32).uri(5, 5)
    decide = authorizer({"tools": ["docs__search"]}).authorize
    assert decide(KEY_DIGEST, "docs", "resources/read", uri, time()).charge == 0
    for other in (Handle("docs", "delete", "a" * 32).uri(), "docs://search", f"{uri} "):
        with pytest.raises(UnknownToolError):
            decide(KEY_DIGEST, "docs", "resources/read", other, time())
    with pytest.raises(UnknownToolError):
        decide(KEY_DIGEST, "docs", "resources/read", uri, time(), (("docs__delete",),))
