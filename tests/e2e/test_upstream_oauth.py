"""Servers that require OAuth: users connect their own accounts, and calls carry their tokens."""

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
UNPROBED = {"probe": 0}  # only a test's own call detects an expired token and renews it
ANN, ROOT = "tbk_ann_the-secret-of-these-tests", "tbk_root_the-secret-of-these-tests"


@pytest.fixture(scope="module")
def oauth_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    with OAuthServer(tmp_path_factory.mktemp("oauth")).running() as server:
        yield server


@pytest.fixture(scope="module")
def mtls_oauth_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[CertificateBoundOAuthServer]:
    """Run an authorization server that identifies the gateway by its certificate."""
    directory = tmp_path_factory.mktemp("showing")
    with CertificateBoundOAuthServer(directory, Certificates(directory)).running() as server:
        server.announce_alias()
        server.say(certificate=kept_thumbprint(server.certificates.client[0]))
        yield server


@pytest.fixture(scope="module")
def unlaunched(
    mtls_oauth_server: CertificateBoundOAuthServer, tmp_path_factory: pytest.TempPathFactory
) -> Launched:
    """Create the gateway, whose address is known before it starts."""
    fields = {
        "TOOLBUS_EGRESS_ALLOW": "127.0.0.0/8 ::1",
        "TOOLBUS_EGRESS_CA": mtls_oauth_server.certificates.ca,
    }
    return Launched(tmp_path_factory.mktemp("gateway"), **fields)


@pytest.fixture(scope="module")
def mtls_server(
    mtls_oauth_server: CertificateBoundOAuthServer,
    unlaunched: Launched,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[CertificateBoundServer]:
    """Run a server that requires the gateway's certificate and the caller's identity."""
    gateway = f"http://127.0.0.1:{unlaunched.port}"
    with CertificateBoundServer(
        tmp_path_factory.mktemp("bank"), mtls_oauth_server, gateway
    ).running() as server:
        yield server


def mutual(
    mtls_oauth_server: CertificateBoundOAuthServer, mtls_server: CertificateBoundServer
) -> dict[str, Any]:
    """Return the configuration with one certificate for both servers."""
    certificate, key = mtls_oauth_server.certificates.client
    references = {"certificate": f"${{file:{certificate}}}", "key": f"${{file:{key}}}"}
    clients = {mtls_oauth_server.issuer: {"id": "toolbus", **references}}
    files = {"ca": mtls_oauth_server.certificates.ca, "certificate": certificate, "key": key}
    oauth = {"grant": "client_credentials", "clients": clients}
    return {"url": mtls_server.url, **files, "oauth": oauth, "identity": {}, "expose": ["whoami"]}


@pytest.fixture(scope="module")
def launched(
    oauth_server: OAuthServer,
    mtls_oauth_server: CertificateBoundOAuthServer,
    mtls_server: CertificateBoundServer,
    unlaunched: Launched,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Launched]:
    """Run a gateway with a server with tokens of each user, and one with a shared token."""
    docs, gateway = (
        ProtectedServer(tmp_path_factory.mktemp("docs"), oauth_server.issuer, "read"),
        unlaunched,
    )
    with (
        docs.running(),
        gateway.running(
            {
                "servers": {
                    "docs": {"url": docs.url, "oauth": {"tokens": "user"}, **UNPROBED},
                    "wiki": {"url": docs.url, "oauth": {}, **UNPROBED},
                    "bound": {"url": docs.url, "oauth": {"dpop": True}, **UNPROBED},
                    "bank": mutual(mtls_oauth_server, mtls_server),
                },
                "users": {"ann": {}, "bob": {}},
                "teams": {"tellers": {}},
                "keys": {
                    "ann": {"secret": ANN, "user": "ann", "team": "tellers", "tools": ["*"]},
                    "root": {"secret": ROOT, "tools": ["*"]},
                },
                "access": {"staff": {"claims": {"groups": "staff"}, "tools": ["*"]}},
            }
        ),
    ):
        for name in ("ann", "bob"):
            words = ("accounts", "add", name, "--group", "staff", "--password-stdin")
            done = gateway.toolbus(*words, stdin=PASSWORD + "\n")
            assert done.returncode == 0, done.stderr
        yield gateway


def text_of(answer: Any) -> str:
    return str(answer.json["result"]["content"][0]["text"])


def link_in(text: str) -> str:
    return next(word for word in text.split() if "/oauth/connect/" in word)


def agreed(browser: Browser, page: Page) -> Page:
    """Allow the connection, and return from the other service."""
    sent = browser.post("/oauth/connect", ticket=page.ticket, answer="allow")
    assert sent.status == 303, sent.text
    return browser.get(redirect_of(sent.location))


def test_a_user_connects_an_account_and_calls_carry_its_token(launched: Launched) -> None:
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
    """Connect an account from a link."""
    browser = Browser(launched.ready["endpoint"].removesuffix("/mcp"))
    page = browser.get(link)
    if 'name="password"' in page.text:
        page = browser.sign_in(page, user, PASSWORD)
    done = agreed(browser, page)
    assert "Connected" in done.text, done.text


def test_a_client_is_asked_to_open_the_page_and_a_link_is_for_its_own_user(
    launched: Launched,
) -> None:
    done = launched.toolbus("connections", "revoke", "docs", "--user", "ann")
    assert done.returncode == 0, done.stderr
    ann = launched.client(ANN)
    request = until_blocking(
        lambda: _input_request(ann), "the question, once the cached token has expired"
    )
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
    client: Client, tool: str = "docs__whoami", forged: str = "", **more: Any
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


def _input_request(client: Client) -> dict[str, Any] | None:
    result = _called(client)
    return result if result.get("resultType") == "input_required" else None


def test_an_operator_connects_a_shared_account_for_keys_without_a_user(launched: Launched) -> None:
    root = launched.client(ROOT)
    assert "this key has no user" in text_of(root.call("docs__whoami", {}))
    connection = launched.toolbus("connections", "connect", "wiki", "--json")
    assert connection.returncode == 0, connection.stderr
    connected(launched, json.loads(connection.stdout)["link"])
    launched.until_listed(root, "wiki__whoami")
    assert text_of(root.call("wiki__whoami", {})) == "ann@far"
    listed = json.loads(launched.toolbus("connections", "list", "--json").stdout)
    found = {(row["server"], row["user"]) for row in listed}
    assert found - {("bank", "")} == {("docs", "ann"), ("wiki", "")}


def test_a_rejected_token_is_renewed_and_no_call_fails(
    launched: Launched, oauth_server: OAuthServer
) -> None:
    root = launched.client(ROOT)
    before = len(oauth_server.seen("refresh_token"))
    oauth_server.expire()
    assert text_of(root.call("wiki__whoami", {})) == "ann@far"
    assert len(oauth_server.seen("refresh_token")) == before + 1


def test_a_bound_token_is_sent_with_a_proof_and_the_nonces_of_both_servers(
    launched: Launched, oauth_server: OAuthServer
) -> None:
    root = launched.client(ROOT)
    oauth_server.say(nonce="n-1")
    connection = launched.toolbus("connections", "connect", "bound", "--json")
    assert connection.returncode == 0, connection.stderr
    connected(launched, json.loads(connection.stdout)["link"])
    # Instead of its scheduled retry.
    assert launched.toolbus("servers", "reset", "bound").returncode == 0
    launched.until_listed(root, "bound__whoami")
    until_blocking(lambda: "result" in root.call("bound__whoami", {}).json, "the new connection")
    oauth_server.say(nonce="n-2")
    assert text_of(root.call("bound__whoami", {})) == "ann@far"
    oauth_server.expire()
    assert text_of(root.call("bound__whoami", {})) == "ann@far"
    assert text_of(root.call("wiki__whoami", {})) == "ann@far", "an unbound connection still works"


def test_a_server_gets_the_gateways_certificate_and_an_identity_no_client_can_forge(
    launched: Launched, mtls_server: CertificateBoundServer
) -> None:
    ann, root = launched.client(ANN), launched.client(ROOT)
    launched.until_listed(ann, "bank__whoami")
    for client in (ann, root):
        result = _called(client, "bank__whoami", forged="forged")
        assert result["content"][0]["text"] == "machine"
    calls = [claims for claims in mtls_server.callers() if claims.get("tool") == "whoami"]
    assert [(each["sub"], each["key"], each.get("team")) for each in calls] == [
        ("ann", "ann", "tellers"), ("key:root", "root", None),
    ]  # fmt: skip
    for each in calls:
        launched.eventual_rows(f"SELECT * FROM events WHERE call_id = '{each['jti']}'")


def test_an_unregistered_certificate_is_an_error_with_its_fix(
    launched: Launched, mtls_oauth_server: CertificateBoundOAuthServer
) -> None:
    root = launched.client(ROOT)
    launched.until_listed(root, "bank__whoami")
    mtls_oauth_server.say(certificate=kept_thumbprint(mtls_oauth_server.certificates.second[0]))
    try:
        mtls_oauth_server.expire()
        answer = root.call("bank__whoami", {}).json
        assert "check that the client certificate under oauth.clients" in json.dumps(answer)
    finally:
        mtls_oauth_server.say(certificate=kept_thumbprint(mtls_oauth_server.certificates.client[0]))


def test_tokens_and_secrets_are_in_no_file_and_no_log(
    launched: Launched, oauth_server: OAuthServer
) -> None:
    secrets = {form["refresh_token"] for form in oauth_server.seen("refresh_token")}
    assert secrets
    files = [content for _, content in files_in(launched.state_dir)]
    written = [launched.logs().encode(), *files]
    signed = json.loads((launched.state_dir / "oauth-identity.json").read_bytes())["keys"][0]
    header = header_of(typ=TYPE, kid=signed["kid"])
    assert sum(signed["d"].encode() in text for text in written) == 1, "only in its own file"
    for each in (*secrets, "far~", "again~", header):
        assert not any(each.encode() in text for text in written), each
