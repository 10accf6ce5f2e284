"""People sign in: a public client finds the way by itself, and calls tools in their name."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from mcp import ClientSession
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from harness.clients.admin_client import at, why
from harness.clients.form_browser import Browser
from harness.clients.mcp_client import Answer, Client
from harness.engines.engine import installed
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.oauth.dpop_proofs import Holder
from harness.services.authorization_service import FORM, VERIFIER, authorization_request
from harness.waits import until_blocking

PASSWORD = "correct horse battery"
REDIRECT = "http://127.0.0.1:9/callback"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
ROOT = "tbk_root_the-secret-of-these-tests"


class Kept:
    """What the SDK keeps."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info

    @property
    def token(self) -> str:
        assert self.tokens is not None
        return self.tokens.access_token


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A gateway that ann signs in to."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    made = Launched(tmp_path_factory.mktemp("identity"))
    made.configure(
        {
            "servers": {"echo": {"url": echo.url}},
            "keys": {"root": {"secret": ROOT, "tools": ["*"]}},
            "groups": {
                "saying": {"tools": ["echo__say"], "scope": "first"},
                "counting": {"tools": ["echo__count"], "scope": "later"},
            },
            "access": {
                "staff": {"claims": {"groups": "staff"}, "tools": ["echo__say"]},
                "careful": {"claims": {"groups": "careful"}, "tools": ["echo__*"]},
                "ops": {
                    "claims": {"groups": "ops"},
                    "tools": ["echo__say"],
                    "approve": ["echo__say"],
                    "role": "operator",
                },
            },
        }
    )
    try:
        echo.start()
        made.start()
        made.until_listed(made.client(ROOT), "echo__say")
        for name, group in (("ann", "staff"), ("bo", "careful"), ("cy", "ops")):
            words = ("accounts", "add", name, "--group", group, "--password-stdin")
            added = made.toolbus(*words, stdin=f"{PASSWORD}\n")
            assert added.returncode == 0, added.stderr
        yield made
    finally:
        made.stop()
        echo.kill()


def provider(endpoint: str, kept: Kept, name: str = "ann") -> OAuthClientProvider:
    """The SDK's own client, with somebody before the browser."""
    browser = Browser(endpoint.partition("/mcp")[0])
    sent: dict[str, str] = {}

    async def open_page(url: str) -> None:
        shown = await asyncio.to_thread(browser.get, url)
        page = shown
        if 'name="password"' in shown.text:
            page = await asyncio.to_thread(browser.sign_in, shown, name, PASSWORD)
        sent.update((await asyncio.to_thread(browser.answer, page)).parameters)

    async def come_back() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=sent["code"], state=sent["state"], iss=sent["iss"])

    metadata = OAuthClientMetadata(
        client_name="A client of the SDK", redirect_uris=[REDIRECT], scope="tools"
    )
    return OAuthClientProvider(endpoint, metadata, kept, open_page, come_back)


async def _said(endpoint: str, kept: Kept) -> tuple[set[str], bool]:
    """The tools a client sees, and whether a call of one failed."""
    async with (
        httpx2.AsyncClient(auth=provider(endpoint, kept), timeout=60) as http,
        streamable_http_client(endpoint, http_client=http) as streams,
        ClientSession(*streams[:2]) as session,
    ):
        await session.initialize()
        tools = await session.list_tools()
        result = await session.call_tool(tools.tools[0].name, {"text": "hello"})
        return {tool.name for tool in tools.tools}, bool(result.is_error)


def test_a_client_finds_the_way_and_calls_as_a_person_until_that_is_taken_back(
    launched: Launched,
) -> None:
    kept = Kept()
    endpoint = launched.ready["endpoint"]
    assert asyncio.run(_said(endpoint, kept)) == ({"echo__say"}, False)
    hers = "SELECT key, detail FROM events WHERE user = person('ann') AND event ="
    (called,) = launched.eventual_rows(f"{hers} 'call.allowed'")
    assert called["key"].startswith("staff:")
    (given,) = launched.eventual_rows(f"{hers} 'grant.created'")
    assert kept.token not in called["detail"] + given["detail"]
    assert "ann" not in called["key"]

    client = Client(endpoint, kept.token)
    assert client.tools() == ["echo__say"]
    assert client.call("echo__count").code == "unknown_tool"
    elsewhere = Client(f"{endpoint}/echo", kept.token).request("tools/list")
    assert elsewhere.status == 401
    assert 'error="invalid_token"' in elsewhere.headers["www-authenticate"]

    listed = launched.toolbus("grants", "list", "--json")
    (grant,) = [line for line in listed.stdout.splitlines() if '"id"' in line]
    ended = launched.toolbus("grants", "revoke", grant.split('"')[3])
    assert ended.returncode == 0, ended.stderr
    until_blocking(lambda: client.request("tools/list").status == 401, "the token opens nothing")
    assert kept.token not in launched.logs()


def test_an_endpoint_of_one_server_has_a_document_and_tokens_of_its_own(launched: Launched) -> None:
    endpoint = f"{launched.ready['endpoint']}/echo"
    refused = Client(endpoint).request("tools/list")
    base = endpoint.removesuffix("/mcp/echo")
    document = f"{base}/.well-known/oauth-protected-resource/mcp/echo"
    assert (
        f'resource_metadata="{document}", scope="tools:saying"'
        in refused.headers["www-authenticate"]
    )
    body: dict[str, Any] = Client(endpoint).get(document).json
    assert (body["resource"], body["authorization_servers"]) == (endpoint, [base])
    assert Client(endpoint).get(document.replace("echo", "nowhere")).status == 404
    assert asyncio.run(_said(endpoint, Kept())) == ({"say"}, False)


async def _counted(endpoint: str, kept: Kept) -> tuple[set[str], str]:
    """The tools bo's client sees, and what it was told by one that it had not asked for."""
    async with (
        httpx2.AsyncClient(auth=provider(endpoint, kept, "bo"), timeout=60) as http,
        streamable_http_client(endpoint, http_client=http) as streams,
        ClientSession(*streams[:2]) as session,
    ):
        await session.initialize()
        began = kept.tokens and kept.tokens.scope
        assert began == "tools:saying"
        tools = await session.list_tools()
        result = await session.call_tool("echo__count", {"id": "seven"})
        return {tool.name for tool in tools.tools}, str(result.content[0])


def test_a_client_comes_back_for_more_when_a_call_needs_it(launched: Launched) -> None:
    kept, endpoint = Kept(), launched.ready["endpoint"]
    tools, result = asyncio.run(_counted(endpoint, kept))
    assert {"echo__say", "echo__count", "echo__wait"} <= tools
    assert "seven" in result
    assert kept.tokens is not None
    assert set((kept.tokens.scope or "").split()) == {"tools:saying", "tools:counting"}
    refused = Client(endpoint, kept.token).call("echo__wait", {"id": "x", "seconds": 0})
    assert (refused.status, refused.code) == (403, "insufficient_scope")
    challenge = refused.headers["www-authenticate"]
    base = endpoint.removesuffix("/mcp")
    where = f'resource_metadata="{base}/.well-known/oauth-protected-resource/mcp"'
    assert f'error="insufficient_scope", scope="tools", {where}' in challenge
    bos = "SELECT detail FROM events WHERE user = person('bo') AND event = 'call.denied'"
    rows = launched.eventual_rows(bos, lambda rows: len(rows) >= 2)
    assert all("insufficient_scope" in row["detail"] for row in rows)


def token_of(launched: Launched, resource: str, scope: str) -> str:
    """An access token of cy's, for a client that shows a code."""
    base = launched.ready["endpoint"].removesuffix("/mcp")
    device = {"client_id": "toolbus", "resource": f"{base}{resource}", "scope": scope}
    browser = Browser(base)
    waiting = json.loads(browser.post("/oauth/device/code", **device).text)
    allowed_by_cy(browser, waiting["verification_uri_complete"])
    form = {"client_id": "toolbus", "device_code": waiting["device_code"]}
    result = browser.post("/oauth/token", grant_type=DEVICE, **form)
    assert result.status == 200, result.text
    return str(json.loads(result.text)["access_token"])


def allowed_by_cy(browser: Browser, page: str) -> None:
    shown = browser.sign_in(browser.get(page), "cy", PASSWORD)
    assert browser.answer(shown).status == 200


@pytest.fixture(scope="module")
def coded(launched: Launched) -> Launched:
    """The same, with a client that shows a code."""
    words = ("clients", "add", "The command", "--id", "toolbus", "--public")
    assert launched.toolbus(*words).returncode == 0
    return launched


def test_somebody_with_a_role_administers_by_signing_in_and_is_named(coded: Launched) -> None:
    endpoint = coded.ready["endpoint"]
    base = endpoint.removesuffix("/mcp")
    command = [installed("toolbus"), "admins", "login", "--url", base]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=coded.environment
    ) as login:
        assert login.stderr is not None
        allowed_by_cy(Browser(base), login.stderr.readline().split()[1])
        result, _ = login.communicate(timeout=120)
    token = result.strip()
    cy = at(coded, token)
    who = cy.request("GET", "/v1/self").json
    assert (who["name"], who["role"]) == ("cy", "operator")
    made = cy.request("POST", "/v1/keys", {"name": "made-by-cy", "tools": []})
    assert made.status == 201, made.body
    assert why(cy.request("PUT", "/v1/teams/x", {})) == "forbidden"
    hers = "SELECT by FROM config_changes WHERE by = person('cy') AND name = 'made-by-cy'"
    assert coded.eventual_rows(hers)
    assert Client(endpoint, token).request("tools/list").status == 401
    assert token not in coded.logs()


def test_a_token_to_look_changes_nothing_and_says_what_would(coded: Launched) -> None:
    look = at(coded, token_of(coded, "/api", "admin:read"))
    assert look.request("GET", "/v1/keys").status == 200
    refused = look.request("POST", "/v1/keys/root/revoke")
    assert (refused.status, why(refused)) == (403, "insufficient_scope")
    base = look.base
    document = f"{base}/.well-known/oauth-protected-resource/api"
    assert f'scope="admin", resource_metadata="{document}"' in refused.headers["www-authenticate"]
    assert Client(base).get(document).json["resource"] == f"{base}/api"
    unknown = at(coded).request("GET", "/v1/self").headers["www-authenticate"]
    assert f'scope="admin:read", resource_metadata="{document}"' in unknown


def test_nobody_decides_about_their_own_calls_by_signing_in_twice(coded: Launched) -> None:
    tools = token_of(coded, "/mcp", "tools")
    assert at(coded, tools).request("GET", "/v1/self").status == 401
    waits = Client(coded.ready["endpoint"], tools).call("echo__say", {"text": "hello"})
    assert waits.code == "approval_required"
    approval = waits.error["data"]["approval"]
    cy = at(coded, token_of(coded, "/api", "admin"))
    own = cy.request("POST", f"/v1/approvals/{approval}/approve", {})
    assert (own.status, why(own)) == (403, "forbidden")


def bound_token(base: str, holder: Holder) -> str:
    """A token of ann's for `/mcp`, bound to this key."""
    about = {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}
    client = Client(f"{base}/oauth/register").post(about).json["client_id"]
    browser = Browser(base)
    wanted = authorization_request(client, redirect_uri=REDIRECT, resource=f"{base}/mcp")
    shown = browser.get(f"{base}/oauth/authorize?{urlencode(wanted)}")
    code = browser.answer(browser.sign_in(shown, "ann", PASSWORD)).parameters["code"]
    form = {"grant_type": "authorization_code", "client_id": client, "code": code}
    form |= {"code_verifier": VERIFIER, "redirect_uri": REDIRECT}
    proof = holder.proof("POST", f"{base}/oauth/token")
    sent = {"Content_Type": FORM["content-type"], "DPoP": proof}
    body = Client(f"{base}/oauth/token").post(urlencode(form).encode(), **sent).json
    assert body["token_type"] == "DPoP"
    return str(body["access_token"])


def test_a_token_that_is_bound_to_a_key_opens_nothing_for_who_has_it_alone(
    launched: Launched,
) -> None:
    endpoint, holder = launched.ready["endpoint"], Holder()
    base = endpoint.removesuffix("/mcp")
    token = bound_token(base, holder)

    def tried(scheme: str, proof: str) -> Answer:
        return Client(endpoint).request("tools/list", Authorization=f"{scheme} {token}", DPoP=proof)

    stolen = holder.proof("POST", endpoint, token)
    assert tried("DPoP", stolen).json["result"]["tools"][0]["name"] == "echo__say"
    for refused in (
        tried("DPoP", stolen),
        tried("DPoP", Holder().proof("POST", endpoint, token)),
        tried("DPoP", holder.proof("POST", f"{base}/oauth/token")),
        tried("DPoP", holder.proof("POST", f"{endpoint}/echo", token)),
        tried("Bearer", holder.proof("POST", endpoint, token)),
    ):
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("DPoP ")
    key = Client(endpoint).request("tools/list", Authorization=f"DPoP {ROOT}", DPoP=stolen)
    assert key.status == 401, "a key is bound to nothing"
    doubled = Client(endpoint).request(
        "tools/list", Authorization=f"DPoP {token}", DPoP=stolen, dpop=stolen
    )
    assert doubled.status == 400
    page = Browser(base).post(f"/approvals/{'0' * 32}", action="show", key=token)
    assert page.status == 401
    assert "requires a DPoP proof" in page.text
    assert token not in launched.logs()
