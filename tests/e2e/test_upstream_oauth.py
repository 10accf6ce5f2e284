"""Servers that want OAuth: people connect their own accounts, and calls carry their tokens."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from harness.audit.written_files import files_in
from harness.clients.form_browser import Browser, Page
from harness.clients.mcp_client import Client
from harness.engines.http_engine import redirect_of
from harness.gateway.launched_gateway import Launched
from harness.oauth.caller_identities import TYPE
from harness.oauth.client_certificates import Certificates, kept_thumbprint
from harness.oauth.protected_processes import (
    CertificateBoundOAuthServer,
    CertificateBoundServer,
    OAuthServer,
    ProtectedServer,
)
from harness.waits import until_blocking
from toolbus_common.crypto.p256 import header_of

PASSWORD = "correct horse battery"
UNPROBED = {"probe": 0}  # only a call of a test finds that a token has ended, and has it renewed
ANN, ROOT = "tbk_ann_the-secret-of-these-tests", "tbk_root_the-secret-of-these-tests"


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    with OAuthServer(tmp_path_factory.mktemp("oauth")).running() as made:
        yield made


@pytest.fixture(scope="module")
def showing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CertificateBoundOAuthServer]:
    """An authorization server that knows us by our certificate."""
    directory = tmp_path_factory.mktemp("showing")
    with CertificateBoundOAuthServer(directory, Certificates(directory)).running() as made:
        made.announce_alias()
        made.say(certificate=kept_thumbprint(made.certificates.client[0]))
        yield made


@pytest.fixture(scope="module")
def unlaunched(
    showing: CertificateBoundOAuthServer, tmp_path_factory: pytest.TempPathFactory
) -> Launched:
    """The gateway, whose address is known before it begins."""
    fields = {
        "TOOLBUS_EGRESS_ALLOW": "127.0.0.0/8 ::1",
        "TOOLBUS_EGRESS_CA": showing.certificates.ca,
    }
    return Launched(tmp_path_factory.mktemp("gateway"), **fields)


@pytest.fixture(scope="module")
def bank(
    showing: CertificateBoundOAuthServer,
    unlaunched: Launched,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[CertificateBoundServer]:
    """A server that wants our certificate, and to be told who calls."""
    gateway = f"http://127.0.0.1:{unlaunched.port}"
    with CertificateBoundServer(
        tmp_path_factory.mktemp("bank"), showing, gateway
    ).running() as made:
        yield made


def mutual(showing: CertificateBoundOAuthServer, bank: CertificateBoundServer) -> dict[str, Any]:
    """The same certificate for both of them."""
    certificate, key = showing.certificates.client
    references = {"certificate": f"${{file:{certificate}}}", "key": f"${{file:{key}}}"}
    clients = {showing.issuer: {"id": "toolbus", **references}}
    files = {"ca": showing.certificates.ca, "certificate": certificate, "key": key}
    oauth = {"grant": "client_credentials", "clients": clients}
    return {"url": bank.url, **files, "oauth": oauth, "identity": {}, "expose": ["whoami"]}


@pytest.fixture(scope="module")
def launched(
    far: OAuthServer,
    showing: CertificateBoundOAuthServer,
    bank: CertificateBoundServer,
    unlaunched: Launched,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Launched]:
    """A gateway before a server with tokens of each user, and one with a shared token."""
    docs, made = ProtectedServer(tmp_path_factory.mktemp("docs"), far.issuer, "read"), unlaunched
    made.configure(
        {
            "servers": {
                "docs": {"url": docs.url, "oauth": {"tokens": "user"}, **UNPROBED},
                "wiki": {"url": docs.url, "oauth": {}, **UNPROBED},
                "bound": {"url": docs.url, "oauth": {"dpop": True}, **UNPROBED},
                "bank": mutual(showing, bank),
            },
            "users": {"ann": {}, "bob": {}},
            "teams": {"tellers": {}},
            "keys": {
                "ann": {"secret": ANN, "user": "ann", "team": "tellers", "tools": ["*"]},
                "root": {"secret": ROOT, "tools": ["*"]},
            },
            "access": {"staff": {"claims": {"groups": "staff"}, "tools": ["*"]}},
        }
    )
    try:
        docs.start()
        made.start()
        for name in ("ann", "bob"):
            words = ("accounts", "add", name, "--group", "staff", "--password-stdin")
            done = made.toolbus(*words, stdin=PASSWORD + "\n")
            assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.stop()
        docs.kill()


def text_of(answer: Any) -> str:
    return str(answer.json["result"]["content"][0]["text"])


def link_in(text: str) -> str:
    return next(word for word in text.split() if "/oauth/connect/" in word)


def agreed(browser: Browser, page: Page) -> Page:
    """Say yes on the consent page, and come back from the other service."""
    sent = browser.post("/oauth/connect", ticket=page.ticket, answer="allow")
    assert sent.status == 303, sent.text
    return browser.get(redirect_of(sent.location))


def test_a_person_connects_an_account_and_calls_carry_its_token(launched: Launched) -> None:
    ann = launched.client(ANN)
    launched.until_listed(ann, "docs__connect_account")
    refused = ann.call("docs__connect_account", {})
    link = link_in(text_of(refused))
    browser = Browser(launched.ready["endpoint"].removesuffix("/mcp"))
    page = browser.sign_in(browser.get(link), "ann", PASSWORD)
    assert "docs" in page.text
    assert "read" in page.text
    done = agreed(browser, page)
    assert done.status == 200, done.text
    launched.until_listed(ann, "docs__whoami")
    assert text_of(ann.call("docs__whoami", {})) == "ann@far"
    listed = launched.client(ROOT).request("resources/list").json["result"]["resources"]
    assert "mail://ann/drafts" not in {each["uri"] for each in listed}


def connected(launched: Launched, link: str, user: str = "ann") -> None:
    """Walk the whole way from a link."""
    browser = Browser(launched.ready["endpoint"].removesuffix("/mcp"))
    page = browser.get(link)
    if 'name="password"' in page.text:
        page = browser.sign_in(page, user, PASSWORD)
    done = agreed(browser, page)
    assert "Connected" in done.text, done.text


def test_a_client_that_opens_pages_is_asked_to_and_a_link_is_for_its_own_person(
    launched: Launched,
) -> None:
    done = launched.toolbus("connections", "revoke", "docs", "--user", "ann")
    assert done.returncode == 0, done.stderr
    ann = launched.client(ANN)
    request = until_blocking(lambda: _asked(ann), "the question, once what was kept is let go")
    params = request["inputRequests"]["toolbus.connect"]["params"]
    assert params["mode"] == "url"
    assert ANN not in json.dumps(request)
    browser = Browser(launched.ready["endpoint"].removesuffix("/mcp"))
    other = browser.sign_in(browser.get(params["url"]), "bob", PASSWORD)
    assert other.status == 403
    assert "Continue" not in other.text
    forced = browser.post("/oauth/connect", ticket=other.ticket, answer="allow")
    assert forced.status == 403
    connected(launched, params["url"])
    answers = {"toolbus.connect": {"action": "accept"}}
    retried = _called(ann, inputResponses=answers)
    assert retried["content"][0]["text"] == "ann@far"


def _called(
    client: Client,
    tool: str = "docs__whoami",
    forged: str = "",
    **more: Any,
) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}, "url": {}}},
    }
    params = {"name": tool, "arguments": {}, "_meta": meta, **more}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    about = {"Mcp_Method": "tools/call", "Mcp_Name": tool}
    about |= {"Toolbus_Identity": forged} if forged else {}
    answer = client.post(body, MCP_Protocol_Version="2026-07-28", **about)
    return dict(answer.json["result"])


def _asked(client: Client) -> dict[str, Any] | None:
    result = _called(client)
    return result if result.get("resultType") == "input_required" else None


def test_an_operator_consents_for_everybody_and_a_key_without_a_person_may_call(
    launched: Launched,
) -> None:
    root = launched.client(ROOT)
    assert "this key has no user" in text_of(root.call("docs__whoami", {}))
    made = launched.toolbus("connections", "connect", "wiki", "--json")
    assert made.returncode == 0, made.stderr
    connected(launched, json.loads(made.stdout)["link"])
    launched.until_listed(root, "wiki__whoami")
    assert text_of(root.call("wiki__whoami", {})) == "ann@far"
    listed = json.loads(launched.toolbus("connections", "list", "--json").stdout)
    found = {(row["server"], row["user"]) for row in listed}
    assert found - {("bank", "")} == {("docs", "ann"), ("wiki", "")}


def test_a_token_that_is_refused_is_renewed_and_no_call_fails(
    launched: Launched, far: OAuthServer
) -> None:
    root = launched.client(ROOT)
    before = len(far.seen("refresh_token"))
    far.expire()
    assert text_of(root.call("wiki__whoami", {})) == "ann@far"
    assert len(far.seen("refresh_token")) == before + 1


def test_a_bound_token_is_shown_with_a_proof_and_the_nonces_of_both_servers(
    launched: Launched, far: OAuthServer
) -> None:
    root = launched.client(ROOT)
    far.say(nonce="n-1")
    made = launched.toolbus("connections", "connect", "bound", "--json")
    assert made.returncode == 0, made.stderr
    connected(launched, json.loads(made.stdout)["link"])
    assert launched.toolbus("servers", "reset", "bound").returncode == 0  # and not in its time
    launched.until_listed(root, "bound__whoami")
    until_blocking(lambda: "result" in root.call("bound__whoami", {}).json, "the new connection")
    far.say(nonce="n-2")
    assert text_of(root.call("bound__whoami", {})) == "ann@far"
    far.expire()
    assert text_of(root.call("bound__whoami", {})) == "ann@far"
    assert text_of(root.call("wiki__whoami", {})) == "ann@far", "unbound, beside it"


def test_a_server_sees_our_certificate_and_who_calls_and_no_agent_says_otherwise(
    launched: Launched, bank: CertificateBoundServer
) -> None:
    ann, root = launched.client(ANN), launched.client(ROOT)
    launched.until_listed(ann, "bank__whoami")
    for client in (ann, root):
        result = _called(client, "bank__whoami", forged="forged")
        assert result["content"][0]["text"] == "machine"
    calls = [claims for claims in bank.callers() if claims.get("tool") == "whoami"]
    assert [(each["sub"], each["key"], each.get("team")) for each in calls] == [
        ("ann", "ann", "tellers"), ("key:root", "root", None),
    ]  # fmt: skip
    for each in calls:
        launched.eventual_rows(f"SELECT * FROM events WHERE call_id = '{each['jti']}'")


def test_where_another_certificate_is_registered_a_caller_is_told_what_to_see_to(
    launched: Launched, showing: CertificateBoundOAuthServer
) -> None:
    root = launched.client(ROOT)
    launched.until_listed(root, "bank__whoami")
    showing.say(certificate=kept_thumbprint(showing.certificates.second[0]))
    try:
        showing.expire()
        answer = root.call("bank__whoami", {}).json
        assert "check that the client certificate under oauth.clients" in json.dumps(answer)
    finally:
        showing.say(certificate=kept_thumbprint(showing.certificates.client[0]))


def test_tokens_and_secrets_are_nowhere_to_be_read(launched: Launched, far: OAuthServer) -> None:
    secrets = {form["refresh_token"] for form in far.seen("refresh_token")}
    assert secrets
    kept = [content for _, content in files_in(launched.state_dir)]
    written = [launched.logs().encode(), *kept]
    signed = json.loads((launched.state_dir / "oauth-identity.json").read_bytes())["keys"][0]
    header = header_of(typ=TYPE, kid=signed["kid"])
    assert sum(signed["d"].encode() in text for text in written) == 1, "in its own file"
    for each in (*secrets, "far~", "again~", header):
        assert not any(each.encode() in text for text in written), each
