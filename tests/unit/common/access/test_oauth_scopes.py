"""Scopes of access tokens: tools, consent, administration."""

import json
from time import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from harness.builders.access_tokens import bearer
from harness.builders.configurations import configuration_change
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
    CatalogEntry,
    Listing,
    ServerState,
)
from toolbus_common.errors import (
    ForbiddenError,
    InsufficientScopeError,
    UnknownToolError,
)
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.rest import problems
from toolbus_oauth.accounts.access_rules import entitled_rule
from toolbus_oauth.server import scopes as scoping
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import OAuthError
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions
from toolbus_policy.admin.service import AdminService
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.approvals import model
from toolbus_policy.approvals.approvers import Approver, approver_for_key

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


def snapshot(scope: str, actors: tuple[str, ...] = (), **sections: Any) -> ConfigSnapshot:
    bearers = TokenCache()
    bearers.take(hash_of(KEY_DIGEST), bearer(scope=scope, actors=actors))
    return ConfigSnapshot.of(declared(**sections), bearers=bearers)


def decided(scope: str, tool: str, **sections: Any) -> str:
    """Return `fine`, or the error code of the authorization with its scope."""
    authorizer = Authorizer(snapshot(scope, **sections), LISTED)
    try:
        authorizer.authorize(KEY_DIGEST, "docs", "tools/call", tool, time())
    except (UnknownToolError, InsufficientScopeError) as error:
        return f"{error.code} {error.data.get('scope', '')}".strip()
    return "fine"


def test_a_token_covers_what_its_scope_and_its_rule_share() -> None:
    assert decided("tools", "burn") == "fine"
    assert decided("tools:reading", "read") == "fine"
    assert decided("tools:reading tools:writing", "write") == "fine"
    assert decided("tools:reading", "list") == "unknown_tool", "the rule does not grant it"


def test_a_caller_with_too_narrow_a_token_receives_the_needed_scope() -> None:
    assert decided("tools:reading", "write") == "insufficient_scope tools:reading tools:writing"
    assert decided("tools:reading", "burn") == "insufficient_scope tools"
    assert decided("tools:reading", "nothing") == "unknown_tool"


@pytest.mark.parametrize("scope", ["", "tools:plain", "tools:gone", "openid", "TOOLS", "admin:x"])
def test_a_scope_that_is_not_offered_covers_nothing(scope: str) -> None:
    assert decided(scope, "read") == "insufficient_scope " + " ".join(
        [*scope.split(), "tools:reading"]
    )


def test_a_group_that_is_no_longer_a_scope_covers_nothing() -> None:
    groups = {**GROUPS, "reading": {"tools": ["docs__read"]}}
    assert decided("tools:reading", "read", groups=groups) == "insufficient_scope tools"


def test_the_listing_shows_all_the_person_may_use() -> None:
    principal = snapshot("tools:reading").principal_for(KEY_DIGEST, time())
    assert principal is not None
    assert principal.seen.cover("docs__burn")
    assert not principal.bounds.cover("docs__burn")


@pytest.mark.parametrize(
    ("scope", "actors"), [("tools", ("machines/helper",)), ("tools:reading", ())]
)
def test_a_delegated_or_narrowed_token_cannot_approve(scope: str, actors: tuple[str, ...]) -> None:
    rights: dict[str, Any] = {"access": {"staff": {"tools": ["*"], "rights": ["approve"]}}}
    assert approver_for_key(snapshot("tools", **rights), KEY_DIGEST, time()).name.startswith("key:")
    with pytest.raises(ForbiddenError, match="delegated token"):
        approver_for_key(snapshot(scope, actors=actors, **rights), KEY_DIGEST, time())


def test_a_narrowed_principal_is_cached_with_the_whole_one() -> None:
    shot = snapshot("tools:reading")
    assert shot.principal_for(KEY_DIGEST, time()) is shot.principal_for(KEY_DIGEST, time())
    after = shot.after(2, {"staff:ann": None})
    assert after.principal_for(KEY_DIGEST, time()) is not None


def test_only_a_plain_list_of_tools_can_be_a_scope() -> None:
    for group in ({"scope": "first"}, {"scope": "later", "tools": ["a__*"], "deny": ["a__b"]}):
        with pytest.raises(ValidationError):
            declared(groups={"x": group})


def test_clients_start_with_the_first_scopes() -> None:
    assert scopes.first(declared()) == ["tools:reading"]
    assert scopes.first(declared(groups={})) == ["tools"]
    assert scopes.offered(declared()) == ["tools", "tools:reading", "tools:writing"]


CONFIGURED, REGISTERED = Client("v", "v"), Client("s", "s", registered=True)


def given(requested: str, client: Client = CONFIGURED, *, administration: bool = False) -> str:
    try:
        return scoping.grant_scopes(declared(), client, requested, administration=administration)
    except OAuthError as error:
        return error.code


@pytest.mark.parametrize(
    ("requested", "granted"),
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
def test_a_client_is_granted_the_offered_scopes_it_requests(requested: str, granted: str) -> None:
    assert given(requested) == given(requested, REGISTERED) == granted


@pytest.mark.parametrize(
    ("requested", "granted"),
    [
        ("", "admin:read"),
        ("admin", "admin"),
        ("admin:read admin", "admin"),
        ("tools", "invalid_scope"),
    ],
)
def test_only_configured_clients_may_request_administration(requested: str, granted: str) -> None:
    assert given(requested, administration=True) == granted
    assert given(requested, REGISTERED, administration=True) == "unauthorized_client"


def test_a_refresh_never_widens_the_scopes() -> None:
    assert scoping.narrow("tools:a tools:b", "") == "tools:a tools:b"
    assert scoping.narrow("tools:a tools:b", "tools:b") == "tools:b"
    assert scoping.narrow("tools", "tools:a") == "tools:a"
    assert scoping.narrow("admin", "admin:read") == "admin:read"
    for more in ("tools", "tools:a tools:c", "admin:read", "toolsx"):
        with pytest.raises(OAuthError):
            scoping.narrow("tools:a tools:b", more)
    assert scoping.within("tools:a", "tools tools:a admin") == ["tools:a"]


def test_a_rule_without_a_role_grants_no_administration() -> None:
    made = declared(access={"first": {"tools": ["*"]}, "second": {"role": "admin"}})
    assert entitled_rule(made, "local", {}, administers=False) == "first"
    assert entitled_rule(made, "local", {}, administers=True) is None, "the first rule counts"


def directory(scope: str, **access: Any) -> ConfigView:
    made = ConfigView()
    result = declared(access={"staff": {**ACCESS["staff"], **access}})
    made.projection.apply_change(configuration_change(result))
    made.projection.apply_change(None)
    made.bearers.take(hash_of(KEY_DIGEST), bearer(scope=scope, handle="3f"))
    return made


def test_an_administrator_has_the_rights_of_role_and_token() -> None:
    whole = directory("admin").administrator(KEY_DIGEST, time())
    assert whole is not None
    assert (whole.by, whole.name, whole.role) == ("user:ann", "ann", "operator")
    assert (whole.key, whole.user) == ("staff:3f", "user:ann")
    assert whole.rights == ["read", "budgets", "calls", "approvals", "decide", "keys", "purge"]
    look = directory("admin:read").administrator(KEY_DIGEST, time())
    assert look is not None
    assert look.rights == ["read", "budgets", "calls"]
    look.check("read")
    with pytest.raises(InsufficientScopeError) as result:
        look.check("keys")
    assert result.value.data == {"scope": "admin"}
    for person in (whole, look):
        with pytest.raises(ForbiddenError):
            person.check("declare")


def test_tokens_for_tools_and_for_administration_do_not_overlap() -> None:
    for scope in ("tools", "tools:reading", ""):
        assert directory(scope).administrator(KEY_DIGEST, time()) is None
    for scope in ("admin", "admin:read", "tools admin"):
        assert snapshot(scope).principal_for(KEY_DIGEST, time()) is None


def test_without_a_role_or_after_expiry_there_is_no_administrator() -> None:
    assert directory("admin", role=None).administrator(KEY_DIGEST, time()) is None
    assert directory("admin", expires="2020-01-01").administrator(KEY_DIGEST, time()) is None
    assert directory("admin").administrator(KEY_DIGEST, time() + 700) is None
    assert directory("admin").administrator(key_digest_of("another"), time()) is None


@pytest.mark.parametrize("role", ROLES)
def test_a_token_never_exceeds_the_role(role: Any) -> None:
    for scope in scopes.ADMINISTRATION:
        person: Administrator = of_person(bearer(scope=scope), role)
        assert all(may(role, right) for right in person.rights)
    assert (
        of_person(bearer(scope="tools"), role).rights
        == of_person(bearer(scope="admin:read"), role).rights
    )


class ApprovalServiceStub:
    """The approval service; keeps the approver of the last decision."""

    def __init__(self) -> None:
        self.approver = Approver("")

    async def decide(self, approver: Approver, *_: Any, approve: bool) -> ApprovalsReply:
        assert approve
        self.approver = approver
        return ApprovalsReply(approvals=(model.state_of(CALL, 0),))


CALL = model.Approval(
    id="1" * 32, binding="b", state=model.State.PENDING, key="staff:other", user="user:ann",
    customer="default", server="docs", tool="burn", method="tools/call", cause="key:staff",
    call_id="c", requested_at=0.0, ends=1.0,
)  # fmt: skip


async def test_an_administrator_remains_the_caller_of_their_own_calls() -> None:
    approvals, unused = ApprovalServiceStub(), cast("Any", None)
    for signed_in, own in (("ann", True), ("bo", False)):
        person = of_person(bearer(scope="admin", user=signed_in), "operator")

        async def found(_: str, person: Administrator = person) -> Administrator:
            return person

        approvers, limits = cast("Any", approvals), RemoteRestrictions()
        admin = AdminService(found, unused, approvers, unused, limits, unused, unused, ())
        await admin.handle(AdminRequest(key_digest="p", operation="approve_call", name=CALL.id))
        assert approvals.approver.is_caller(CALL) is own
        assert approvals.approver.name == f"user:{signed_in}"


def test_an_insufficient_scope_is_answered_with_a_challenge() -> None:
    error = InsufficientScopeError("no", scope="tools:a tools:b")
    answer = jsonrpc.failure(error)
    assert answer.status == 403
    wanted = 'Bearer realm="toolbus", error="insufficient_scope", scope="tools:a tools:b"'
    assert dict(answer.headers)[b"www-authenticate"].decode() == wanted
    where = b', resource_metadata="x"'
    edge = cast("Any", SimpleNamespace(admin_challenge=where))
    result = problems.failure(error, {"path": "/api/v1/self", "headers": []}, edge)
    assert result.status == 403
    assert dict(result.headers)[b"www-authenticate"].endswith(b'scope="tools:a tools:b"' + where)
    assert json.loads(result.body)["fix"]


def test_the_consent_page_describes_each_scope() -> None:
    rule = Access(tools=("*",), role="auditor")
    result = scoping.descriptions(rule, "staff", "admin admin:read tools tools:reading")
    assert [each.split()[0] for each in result] == ["administer", "view", "use", "use"]
    assert "auditor" in result[0]
    assert "reading" in result[3]
