"""What a token is for: less than its person may, never more; and people who administer."""

import json
from time import time
from typing import Any, cast

import pytest
from pydantic import ValidationError

from toolbus_common.access import oauth_scopes as scopes
from toolbus_common.access.administrators import Administrator, of_person
from toolbus_common.access.config_snapshot import (
    ConfigSnapshot,
    ConfigView,
    hash_of,
    key_digest_of,
)
from toolbus_common.access.token_cache import TokenCache
from toolbus_common.admin_api.roles import ROLES, may
from toolbus_common.config import Access, Configuration
from toolbus_common.contracts import (
    AdminRequest,
    ApprovalsReply,
    Bearer,
    CatalogEntry,
    Listing,
    ServerState,
)
from toolbus_common.errors import (
    ForbiddenError,
    InsufficientScopeError,
    UnknownToolError,
)
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION
from toolbus_ingress import cors
from toolbus_ingress.admin_api import responses
from toolbus_ingress.http import jsonrpc
from toolbus_oauth.accounts.access_rules import entitled_rule
from toolbus_oauth.server import scopes as scoping
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import OAuthError
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions
from toolbus_policy.admin.service import AdminService
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.approvals import model
from toolbus_policy.approvals.approvers import Approver, approver_for_key

BASE = "https://gateway.test"
TOKEN = "eyJh.eyJp.c2ln"
KEY_DIGEST = key_digest_of(TOKEN)
GROUPS = {
    "reading": {"tools": ["docs__read", "docs__list"], "scope": "first"},
    "writing": {"tools": ["docs__write"], "scope": "later"},
    "plain": {"tools": ["docs__*"]},
}
ACCESS = {"staff": {"tools": ["docs__read", "docs__write", "docs__burn"], "role": "operator"}}
LISTED = {
    "docs": Listing(
        server="docs",
        state=ServerState.READY,
        tools=tuple(CatalogEntry(name=n, definition={}) for n in ("read", "list", "write", "burn")),
    )
}


def declared(**sections: Any) -> Configuration:
    servers = {"docs": {"url": "https://docs.test/mcp"}}
    fields = {"servers": servers, "groups": GROUPS, "access": ACCESS, **sections}
    return Configuration.model_validate(fields)


def bearer(scope: str, **changes: Any) -> Bearer:
    fields = {"access": "staff", "user": "ann", "client": "c", "resource": f"{BASE}/mcp"}
    return Bearer(**{**fields, "ends": time() + 600, "scope": scope, **changes})


def snapshot(scope: str, actors: tuple[str, ...] = (), **sections: Any) -> ConfigSnapshot:
    bearers = TokenCache()
    bearers.take(hash_of(KEY_DIGEST), bearer(scope, actors=actors))
    return ConfigSnapshot.of(declared(**sections), bearers=bearers)


def decided(scope: str, tool: str, **sections: Any) -> str:
    """What becomes of a call: fine, or the code of why not."""
    authorizer = Authorizer(snapshot(scope, **sections), LISTED)
    try:
        authorizer.authorize(KEY_DIGEST, "docs", "tools/call", tool, time())
    except (UnknownToolError, InsufficientScopeError) as error:
        return f"{error.code} {error.data.get('scope', '')}".strip()
    return "fine"


# -- tokens for tools ------------------------------------------------------------------------


def test_a_token_is_good_for_what_its_scope_and_its_rule_both_cover() -> None:
    assert decided("tools", "burn") == "fine"
    assert decided("tools:reading", "read") == "fine"
    assert decided("tools:reading tools:writing", "write") == "fine"
    assert decided("tools:reading", "list") == "unknown_tool", "the rule does not grant it"


def test_who_may_with_another_token_is_reported_what_it_needs() -> None:
    assert decided("tools:reading", "write") == "insufficient_scope tools:reading tools:writing"
    assert decided("tools:reading", "burn") == "insufficient_scope tools"
    assert decided("tools:reading", "nothing") == "unknown_tool"


@pytest.mark.parametrize("scope", ["", "tools:plain", "tools:gone", "openid", "TOOLS", "admin:x"])
def test_a_scope_that_is_not_offered_covers_nothing(scope: str) -> None:
    assert decided(scope, "read") == "insufficient_scope " + " ".join(
        [*scope.split(), "tools:reading"]
    )


def test_a_group_that_is_a_scope_no_longer_opens_nothing_any_more() -> None:
    groups = {**GROUPS, "reading": {"tools": ["docs__read"]}}
    assert decided("tools:reading", "read", groups=groups) == "insufficient_scope tools"


def test_what_is_listed_is_all_that_a_person_may() -> None:
    principal = snapshot("tools:reading").principal_for(KEY_DIGEST, time())
    assert principal is not None
    assert principal.seen.cover("docs__burn")
    assert not principal.bounds.cover("docs__burn")


@pytest.mark.parametrize(
    ("scope", "actors"), [("tools", ("machines/helper",)), ("tools:reading", ())]
)
def test_nobody_decides_in_anothers_name_or_with_a_token_for_less(
    scope: str, actors: tuple[str, ...]
) -> None:
    rights: dict[str, Any] = {"access": {"staff": {"tools": ["*"], "rights": ["approve"]}}}
    assert approver_for_key(snapshot("tools", **rights), KEY_DIGEST, time()).name.startswith("key:")
    with pytest.raises(ForbiddenError, match="delegated token"):
        approver_for_key(snapshot(scope, actors=actors, **rights), KEY_DIGEST, time())


def test_a_principal_within_a_scope_is_kept_while_the_whole_one_is() -> None:
    shot = snapshot("tools:reading")
    assert shot.principal_for(KEY_DIGEST, time()) is shot.principal_for(KEY_DIGEST, time())
    after = shot.after(2, {"staff:ann": None})
    assert after.principal_for(KEY_DIGEST, time()) is not None


def test_only_plain_lists_of_tools_are_scopes() -> None:
    for group in ({"scope": "first"}, {"scope": "later", "tools": ["a__*"], "deny": ["a__b"]}):
        with pytest.raises(ValidationError):
            declared(groups={"x": group})


def test_clients_are_reported_to_begin_with_what_comes_first() -> None:
    assert scopes.first(declared()) == ["tools:reading"]
    assert scopes.first(declared(groups={})) == ["tools"]
    assert scopes.offered(declared()) == ["tools", "tools:reading", "tools:writing"]


# -- what clients are given ------------------------------------------------------------------

VOUCHED, STRANGER = Client("v", "v"), Client("s", "s", registered=True)


def given(asked: str, client: Client = VOUCHED, *, administration: bool = False) -> str:
    try:
        return scoping.grant_scopes(declared(), client, asked, administration=administration)
    except OAuthError as error:
        return error.code


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("", "tools:reading"),
        ("openid profile", "tools:reading"),
        ("tools", "tools"),
        ("tools:reading tools tools:writing", "tools"),
        ("tools:writing openid tools:reading tools:writing", "tools:writing tools:reading"),
        ("tools:plain", "invalid_scope"),
        ("tools:", "invalid_scope"),
        ("admin", "invalid_scope"),
        ("tools admin:read", "invalid_scope"),
        ("x" * 3000, "invalid_scope"),
    ],
)
def test_a_client_is_given_what_it_asks_for_of_what_there_is(asked: str, told: str) -> None:
    assert given(asked) == given(asked, STRANGER) == told


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("", "admin:read"),
        ("admin", "admin"),
        ("admin:read admin", "admin"),
        ("tools", "invalid_scope"),
    ],
)
def test_only_clients_operators_vouch_for_ask_for_the_administration(asked: str, told: str) -> None:
    assert given(asked, administration=True) == told
    assert given(asked, STRANGER, administration=True) == "unauthorized_client"


def test_what_was_granted_is_never_more_for_being_asked_again() -> None:
    assert scoping.narrow("tools:a tools:b", "") == "tools:a tools:b"
    assert scoping.narrow("tools:a tools:b", "tools:b") == "tools:b"
    assert scoping.narrow("tools", "tools:a") == "tools:a"
    assert scoping.narrow("admin", "admin:read") == "admin:read"
    for more in ("tools", "tools:a tools:c", "admin:read", "toolsx"):
        with pytest.raises(OAuthError):
            scoping.narrow("tools:a tools:b", more)
    assert scoping.within("tools:a", "tools tools:a admin") == ["tools:a"]


def test_a_rule_without_a_role_entitles_nobody_to_administer() -> None:
    made = declared(access={"first": {"tools": ["*"]}, "second": {"role": "admin"}})
    assert entitled_rule(made, "local", {}, administers=False) == "first"
    assert entitled_rule(made, "local", {}, administers=True) is None, "the first rule counts"


# -- who administers -------------------------------------------------------------------------


def directory(scope: str, **access: Any) -> ConfigView:
    made = ConfigView()
    result = declared(access={"staff": {**ACCESS["staff"], **access}})
    made.projection.apply_change(Change(CONFIGURATION, result.model_dump_json().encode(), 1))
    made.projection.apply_change(None)
    made.bearers.take(hash_of(KEY_DIGEST), bearer(scope, handle="3f"))
    return made


def test_somebody_who_signed_in_administers_as_far_as_their_role_and_token_go() -> None:
    whole = directory("admin").administrator(KEY_DIGEST, time())
    assert whole is not None
    assert (whole.by, whole.name, whole.role) == ("user:ann", "ann", "operator")
    assert (whole.key, whole.user) == ("staff:3f", "user:ann")
    assert whole.rights == ["read", "budgets", "approvals", "decide", "keys"]
    look = directory("admin:read").administrator(KEY_DIGEST, time())
    assert look is not None
    assert look.rights == ["read", "budgets"]
    look.check("read")
    with pytest.raises(InsufficientScopeError) as result:
        look.check("keys")
    assert result.value.data == {"scope": "admin"}
    for person in (whole, look):
        with pytest.raises(ForbiddenError):
            person.check("declare")


def test_a_token_for_tools_administers_nothing_and_one_for_that_opens_no_tool() -> None:
    for scope in ("tools", "tools:reading", ""):
        assert directory(scope).administrator(KEY_DIGEST, time()) is None
    for scope in ("admin", "admin:read", "tools admin"):
        assert snapshot(scope).principal_for(KEY_DIGEST, time()) is None


def test_who_has_no_role_any_longer_or_whose_rule_ended_administers_nothing() -> None:
    assert directory("admin", role=None).administrator(KEY_DIGEST, time()) is None
    assert directory("admin", expires="2020-01-01").administrator(KEY_DIGEST, time()) is None
    assert directory("admin").administrator(KEY_DIGEST, time() + 700) is None
    assert directory("admin").administrator(key_digest_of("another"), time()) is None


@pytest.mark.parametrize("role", ROLES)
def test_a_token_never_goes_beyond_the_role(role: Any) -> None:
    for scope in scopes.ADMINISTRATION:
        person: Administrator = of_person(bearer(scope), role)
        assert all(may(role, right) for right in person.rights)
    assert of_person(bearer("tools"), role).rights == of_person(bearer("admin:read"), role).rights


class Deciding:
    """Stands for those who decide: it keeps who that is."""

    def __init__(self) -> None:
        self.who = Approver("")

    async def decide(self, who: Approver, *_: Any, approve: bool) -> ApprovalsReply:
        assert approve
        self.who = who
        return ApprovalsReply(approvals=(model.state_of(CALL, 0),))


CALL = model.Approval(
    id="1" * 32, binding="b", state=model.State.PENDING, key="staff:other", user="user:ann",
    customer="default", server="docs", tool="burn", method="tools/call", cause="key:staff",
    call_id="c", requested_at=0.0, ends=1.0,
)  # fmt: skip


async def test_whoever_signs_in_to_administer_is_still_who_made_the_call() -> None:
    deciding, nobody = Deciding(), cast("Any", None)
    for signed_in, own in (("ann", True), ("bo", False)):
        person = of_person(bearer("admin", user=signed_in), "operator")

        async def found(_: str, person: Administrator = person) -> Administrator:
            return person

        admin = AdminService(found, nobody, cast("Any", deciding), nobody, RemoteRestrictions())
        await admin.handle(AdminRequest(key_digest="p", operation="approve_call", name=CALL.id))
        assert deciding.who.is_caller(CALL) is own
        assert deciding.who.name == f"user:{signed_in}"


# -- what a refusal says ---------------------------------------------------------------------


def test_a_refusal_for_its_scope_is_a_challenge() -> None:
    error = InsufficientScopeError("no", scope="tools:a tools:b")
    answer = jsonrpc.failure(error)
    assert answer.status == 403
    wanted = 'Bearer realm="toolbus", error="insufficient_scope", scope="tools:a tools:b"'
    assert dict(answer.headers)[b"www-authenticate"].decode() == wanted
    where = b', resource_metadata="x"'
    result = responses.failure(error, where)
    assert result.status == 403
    assert dict(result.headers)[b"www-authenticate"].endswith(b'scope="tools:a tools:b"' + where)
    assert json.loads(result.body)["error"]["fix"]


def test_the_page_names_each_scope() -> None:
    rule = Access(tools=("*",), role="auditor")
    result = scoping.descriptions(rule, "staff", "admin admin:read tools tools:reading")
    assert [each.split()[0] for each in result] == ["administer", "view", "use", "use"]
    assert "auditor" in result[0]
    assert "reading" in result[3]


# -- scripts in browsers ---------------------------------------------------------------------

ORIGIN = "https://app.test"


def asked(
    path: str, origin: str = ORIGIN, method: str = "OPTIONS", **headers: str
) -> dict[str, Any]:
    items = [(b"origin", origin.encode())] if origin else []
    more = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": items + more}


@pytest.mark.parametrize(
    "path",
    [
        "/mcp", "/mcp/docs", "/oauth/token", "/oauth/register",
        "/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server",
    ],
)  # fmt: skip
def test_scripts_of_listed_origins_may_read_what_clients_need(path: str) -> None:
    listed = frozenset({ORIGIN})
    assert cors.allowed_origin(asked(path), listed) == ORIGIN.encode()
    for origin in ("", "https://app.test.evil", "https://app.test:8443", "http://app.test", "null"):
        assert cors.allowed_origin(asked(path, origin), listed) == b""
    twice = asked(path)
    twice["headers"] *= 2
    assert cors.allowed_origin(twice, listed) == b""


@pytest.mark.parametrize(
    "path",
    ["/oauth/authorize", "/oauth/consent", "/oauth/account", "/oauth/connect/x", "/api/v1/self",
     "/approvals/1", "/oauth/sign-in", "/mcp/a/b", "/metrics"],
)  # fmt: skip
def test_pages_and_the_administration_are_no_scripts_business(path: str) -> None:
    assert cors.allowed_origin(asked(path), frozenset({ORIGIN})) == b""


def test_a_browser_is_reported_only_what_may_be_sent() -> None:
    result = cors.preflight(
        asked(
            "/mcp",
            access_control_request_method="POST",
            access_control_request_headers="Authorization, mcp-param-x, Cookie, x-evil",
        )
    )
    assert result is not None
    headers = dict(result.headers)
    assert headers[b"access-control-allow-headers"] == b"authorization, mcp-param-x"
    assert b"access-control-allow-credentials" not in headers
    assert cors.preflight(asked("/mcp", method="POST")) is None
    assert cors.preflight(asked("/mcp")) is None


async def test_what_a_script_may_read_says_so_and_nothing_else_changes() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    result = cors.with_cors_headers(send, ORIGIN.encode())
    await result({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await result({"type": "http.response.body", "body": b"x"})
    headers = dict(sent[0]["headers"])
    assert headers[b"access-control-allow-origin"] == ORIGIN.encode()
    assert (headers[b"a"], headers[b"vary"], sent[1]["body"]) == (b"b", b"Origin", b"x")
