"""Who somebody is and what covers them; redirects, keys that change, and the edge's part."""

import json
from pathlib import Path
from time import time
from typing import Any

import pytest
from pydantic import ValidationError

from harness.clients.bus_operator import key
from toolbus_common.access.config_snapshot import (
    ConfigSnapshot,
    ConfigView,
    hash_of,
    key_digest_of,
)
from toolbus_common.access.token_cache import TokenCache
from toolbus_common.config import OWN_ISSUERS, Configuration
from toolbus_common.config_store.loading.loader import load
from toolbus_common.config_store.redacted_view import HIDDEN, exported, restored
from toolbus_common.contracts import Bearer
from toolbus_common.errors import InvalidConfigurationError, UnauthorizedError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION
from toolbus_ingress.auth.dpop import DPoPVerifier
from toolbus_ingress.auth.protected_resource import ProtectedResource
from toolbus_oauth.accounts.access_rules import matching_rule, user_name
from toolbus_oauth.keys import signing_keys as signing
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.web import redirect_uris as redirects
from toolbus_oauth.web.errors import OAuthError
from toolbus_oauth.web.rate_limit import RateLimit
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions

BASE = "https://gateway.test"
SECRET = "tbk_root_a-secret-of-these-tests"
TOKEN = "eyJh.eyJp.c2ln"


def declared(**sections: Any) -> Configuration:
    return Configuration.model_validate(sections)


def bearer(**changes: Any) -> Bearer:
    fields = {"access": "staff", "user": "ann", "client": "c", "resource": f"{BASE}/mcp"}
    return Bearer(**{**fields, "ends": time() + 600, **changes})


# -- rules of access -------------------------------------------------------------------------


def test_the_first_rule_that_covers_somebody_counts() -> None:
    access = {
        "admins": {"claims": {"groups": ["admin", "root"]}, "tools": ["*"]},
        "verified": {"claims": {"groups": "staff", "email": "a@example.org"}, "tools": ["a__*"]},
        "staff": {"claims": {"groups": "staff"}, "tools": ["b__*"]},
        "corp": {"issuer": "corp", "tools": ["c__*"]},
    }
    made = declared(access=access)
    fields = {"groups": ["staff", "root"], "email": "a@example.org"}
    assert matching_rule(made, "local", fields) == "admins"
    assert matching_rule(made, "local", {**fields, "groups": ["staff"]}) == "verified"
    assert matching_rule(made, "local", {"groups": "staff", "email": ["b@example.org"]}) == "staff"
    assert matching_rule(made, "corp", {}) == "corp"
    for nobody in ({}, {"groups": True}, {"groups": None}, {"groups": {"staff": 1}}):
        assert matching_rule(made, "local", nobody) is None
    assert matching_rule(made, "machines", fields) is None


def test_nobody_is_called_by_a_declared_name_unless_their_issuer_may_say_so() -> None:
    naming = {"user": "login"}
    issuers = {
        name: {"url": f"https://{name}.test", **more}
        for name, more in {"plain": {}, "corp": naming, "else": naming}.items()
    }
    made = declared(issuers=issuers, users={"ann": {}})
    assert user_name(made, "local", {"sub": "ann"}) == "ann"
    assert user_name(made, "corp", {"sub": "1", "login": "ann"}) == "ann"
    assert user_name(made, "plain", {"sub": "ann", "login": "ann"}) == "plain/ann"
    odd = user_name(made, "corp", {"sub": "a|b c", "login": "x:y\n"})
    assert odd.startswith("corp/")
    assert odd.removeprefix("corp/").isalnum()
    both = {user_name(made, each, {"sub": "1", "login": "bo"}) for each in ("corp", "else")}
    assert both == {"corp/bo", "else/bo"}, "nobody declared is one person for two issuers"


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
def test_what_would_open_more_than_was_meant_is_refused(section: str, entry: Any) -> None:
    with pytest.raises(ValidationError):
        declared(**{section: {"x": entry}})


# -- holders of tokens -----------------------------------------------------------------------


def test_a_holder_is_a_key_with_everything_above_it() -> None:
    made = declared(
        customers={"acme": {}},
        teams={"ops": {"customer": "acme", "tools": ["docs__*"]}},
        users={"ann": {"deny": ["docs__burn"]}},
        access={"staff": {"team": "ops", "tools": ["*"]}},
    )
    bearers = TokenCache()
    bearers.take(hash_of(key_digest_of(TOKEN)), bearer())
    snapshot = ConfigSnapshot.of(made, bearers=bearers)
    principal = snapshot.principal_for(key_digest_of(TOKEN), time())
    assert principal is not None
    assert (principal.key, principal.customer, principal.own.user) == ("staff:ann", "acme", "ann")
    assert [level for level, _ in principal.levels][1:] == ["user:ann", "team:ops", "customer:acme"]
    covered = [principal.bounds.cover(name) for name in ("docs__read", "docs__burn", "mail__send")]
    assert covered == [True, False, False]
    assert snapshot.principal_for(key_digest_of(TOKEN), time() + 700) is None
    bearers.take("other", bearer(user="bob", handle="3f"))
    assert snapshot.principal_of("staff:3f", time()) is not None  # a person nobody declared
    assert snapshot.principal_of("staff:bob", time()) is None
    assert snapshot.principal_of("gone:ann", time()) is None
    assert (
        ConfigSnapshot.of(declared(), bearers=bearers).principal_for(key_digest_of(TOKEN), time())
        is None
    )


def test_a_token_that_is_taken_back_is_told_to_who_streams_for_its_holder() -> None:
    bearers, gone = TokenCache(), list[str]()
    bearers.on_gone = gone.append
    bearers.apply_change(Change("hash", bearer().encode(), 1))
    assert bearers.known("hash") == bearers.find("hash", time())
    bearers.apply_change(Change("hash", None, 2))
    assert (bearers.known("hash"), gone) == (None, ["staff:ann"])
    bearers.apply_change(Change("hash", b"{}", 3))
    assert bearers.known("hash") is None


def test_tokens_that_ended_are_not_kept_for_ever() -> None:
    bearers = TokenCache()
    for n in range(5000):
        bearers.take(f"{n}", bearer(ends=time() - 1, grant="g"))
    assert len(bearers.of_grant("g")) < 1100


# -- the edge --------------------------------------------------------------------------------


class Asks(RequestReply):
    """Oauth as the edge hears it, without a bus between; it counts."""

    def __init__(self, told: Bearer | Exception) -> None:
        super().__init__("ingress", Bus("ingress", "nats://127.0.0.1:9"))
        self.told, self.asked = told, 0

    async def request(self, question: Any, answer: Any, seconds: float = 5.0) -> Any:  # noqa: ARG002
        self.asked += 1
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def edge(told: Bearer | Exception, **sections: Any) -> tuple[ProtectedResource, Asks]:
    directory, asks = ConfigView(), Asks(told)
    access = {"staff": {"tools": ["*"]}}
    made = declared(**{"access": access, "servers": {"docs": {"url": f"{BASE}/x"}}, **sections})
    directory.projection.apply_change(Change(CONFIGURATION, made.model_dump_json().encode(), 1))
    directory.projection.apply_change(None)
    return ProtectedResource(directory, asks, DPoPVerifier(BASE)), asks


async def test_oauth_is_asked_about_a_token_once() -> None:
    identity, asks = edge(bearer())
    for _ in range(3):
        await identity.verify(TOKEN, identity.resource(""))
    assert asks.asked == 1


async def test_a_token_for_one_endpoint_opens_no_other() -> None:
    identity, _ = edge(bearer(resource=f"{BASE}/mcp/docs"))
    await identity.verify(TOKEN, identity.resource("docs"))
    for server in ("", "mail", "docs/"):
        with pytest.raises(UnauthorizedError, match="another endpoint"):
            await identity.verify(TOKEN, identity.resource(server))


async def test_nobody_is_asked_where_nobody_may_sign_in_or_the_token_is_too_long() -> None:
    identity, asks = edge(bearer(), access={})
    with pytest.raises(UnauthorizedError):
        await identity.verify(TOKEN, identity.resource(""))
    identity, more = edge(bearer())
    with pytest.raises(UnauthorizedError):
        await identity.verify(f"{TOKEN}{'x' * 9000}", identity.resource(""))
    assert asks.asked + more.asked == 0


async def test_a_key_that_looks_like_a_token_stays_a_key() -> None:
    identity, asks = edge(bearer(), keys={"odd": key(TOKEN)})
    await identity.verify(TOKEN, identity.resource("docs"))
    assert asks.asked == 0


def test_documents_are_told_for_every_endpoint_and_no_other_path() -> None:
    identity, _ = edge(bearer())

    def told(path: str, method: str = "GET") -> Any:
        answer = identity.metadata_response({"path": path, "method": method})
        return json.loads(answer.body)["resource"] if answer is not None else None

    root = "/.well-known/oauth-protected-resource"
    assert told(root) == told(f"{root}/mcp") == f"{BASE}/mcp"
    assert told(f"{root}/mcp/docs") == f"{BASE}/mcp/docs"
    for path in (f"{root}/mcp/mail", f"{root}/mcp/docs/", f"{root}x", f"{root}/other", "/mcp"):
        assert told(path) is None
    assert told(root, "POST") is None
    assert edge(bearer(), access={})[0].metadata_response({"path": root, "method": "GET"}) is None


def test_a_challenge_names_the_document_of_its_own_endpoint() -> None:
    identity, _ = edge(bearer())
    where = {path: identity.challenge(path).decode() for path in ("/mcp/docs", "/mcp/no", "/sse")}
    document = f'resource_metadata="{BASE}/.well-known/oauth-protected-resource/mcp'
    assert where["/mcp/docs"].endswith(f'{document}/docs", scope="tools"')
    assert where["/mcp/no"].endswith(f'{document}", scope="tools"')
    assert where["/sse"] == where["/mcp/no"]
    assert edge(bearer(), access={})[0].challenge("/mcp") == b""


# -- redirects -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "http://client.test/back", "javascript:alert(1)", "data:text/html,x", "file:///etc/x",
        "https://a@client.test/", "https://client.test/#x", "https:///x", "//client.test/x",
        "https://client.test/\nx", "https://client.test\\@evil.test/", "", "https://x:y/",
        "http://localhost.evil.test/", "https://a;script-src/x", "https://a'b.test/", "vbscript:x", "https://client.test/\x7f",
    ],
)  # fmt: skip
def test_an_address_nobody_may_be_sent_to_is_not_registered(uri: str) -> None:
    assert redirects.problem(uri)


@pytest.mark.parametrize(
    "uri", ["https://client.test/back?x=1", "http://localhost:1/x", "http://[::1]/", "cursor://x/y"]
)
def test_other_addresses_are(uri: str) -> None:
    assert redirects.problem(uri) == ""
    assert redirects.matches(uri, [uri])


@pytest.mark.parametrize(
    ("uri", "registered"),
    [
        ("http://127.0.0.1:1@evil.test/back", "http://127.0.0.1/back"),
        ("http://127.0.0.1:1/backx", "http://127.0.0.1/back"),
        ("http://localhost/back", "http://127.0.0.1/back"),
        ("https://127.0.0.1:1/back", "https://127.0.0.1/back"),
        ("http://127.0.0.1.evil.test/back", "http://127.0.0.1/back"),
        ("https://client.test:1/back", "https://client.test/back"),
        ("HTTPS://client.test/back", "https://client.test/back"),
    ],
)
def test_an_address_that_is_almost_registered_is_not(uri: str, registered: str) -> None:
    assert not redirects.matches(uri, [registered])


def test_a_loopback_address_may_have_another_port() -> None:
    assert redirects.matches("http://127.0.0.1:5123/back?x", ["http://127.0.0.1:9/back?x"])


# -- keys ------------------------------------------------------------------------------------


def test_keys_change_and_what_the_old_one_signed_is_good_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time()
    monkeypatch.setattr(signing, "time", lambda: now)
    path = tmp_path / "keys.json"
    keys = SigningKeys(path)
    assert path.stat().st_mode & 0o077 == 0
    token = keys.sign({"sub": "ann"}, "at+jwt")
    now += signing.MONTH + 1
    after = keys.sign({"sub": "bob"}, "at+jwt")
    assert len(keys.public()["keys"]) == 2
    assert SigningKeys(path).verified(token) is not None  # another replica, too
    assert all("d" not in each for each in keys.public()["keys"])
    now += signing.MONTH + signing.OVERLAP
    keys.sign({}, "at+jwt")
    assert keys.verified(token) is None
    assert keys.verified(after) is not None


def test_a_new_key_is_handed_out_once_everybody_who_verifies_has_had_time_to_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time()
    monkeypatch.setattr(signing, "time", lambda: now)
    keys = SigningKeys(tmp_path / "keys.json")
    first = keys.newest
    now += signing.MONTH + 1
    keys.sign({}, "at+jwt")
    assert len(keys.public()["keys"]) == 2
    assert keys.newest == first
    now += signing.KNOWN_SECONDS
    assert keys.newest != first


# -- what is declared, shown and changed over HTTP -------------------------------------------

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
    with pytest.raises(InvalidConfigurationError):
        restored(elsewhere, old)


def test_over_http_no_issuer_takes_a_secret_or_an_address_that_was_not_allowed() -> None:
    def places(new: Configuration, old: Configuration, *variables: str) -> list[str]:
        return [
            fault["location"] for fault in RemoteRestrictions((), variables).violations(old, new)
        ]

    corp = declared(issuers={"corp": CORP})
    assert places(corp, declared()) == ["issuers.corp.secret"]
    assert places(corp, declared(), "CORP") == []
    moved = declared(issuers={"corp": {**CORP, "url": "https://evil.test"}})
    assert places(moved, corp) == ["issuers.corp.secret"]
    inside = declared(issuers={"corp": {**CORP, "url": "http://127.0.0.1:9"}})
    assert places(inside, corp, "CORP") == ["issuers.corp.url"]


def test_what_anybody_may_ask_for_is_done_so_often_and_no_oftener() -> None:
    now = 0.0
    pace = RateLimit(2, 60.0, lambda: now)
    pace.keep()
    pace.keep()
    with pytest.raises(OAuthError):
        pace.keep()
    now = 61.0
    pace.keep()


async def test_however_a_token_is_written_it_opens_its_own_endpoint_only() -> None:
    identity, _ = edge(bearer(resource=f"{BASE}/mcp/docs"))
    await identity.verify(TOKEN, identity.resource("docs"))
    key_digest = key_digest_of(TOKEN)
    request = {b"authorization": b"Bearer x"}, {"method": "POST", "path": "/mcp/docs"}
    assert identity.holder_of(key_digest, "docs", *request)
    for wrong in ((key_digest, ""), (key_digest, "mail"), (key_digest_of("another"), "docs")):
        with pytest.raises(UnauthorizedError):
            identity.holder_of(*wrong, *request)
