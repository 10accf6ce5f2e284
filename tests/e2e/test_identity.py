"""Sign-in: a public client discovers the authorization server and calls tools for a person."""

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


class MemoryTokenStorage:
    """An in-memory token storage for the SDK."""

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
    """Run a gateway with three accounts."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    gateway = Launched(tmp_path_factory.mktemp("identity"))
    with (
        echo.running(),
        gateway.running(
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
        ),
    ):
        gateway.until_listed(gateway.client(ROOT), "echo__say")
        for name, group in (("ann", "staff"), ("bo", "careful"), ("cy", "ops")):
            words = ("accounts", "add", name, "--group", group, "--password-stdin")
            added = gateway.toolbus(*words, stdin=f"{PASSWORD}\n")
            assert added.returncode == 0, added.stderr
        yield gateway


def provider(endpoint: str, storage: MemoryTokenStorage, name: str = "ann") -> OAuthClientProvider:
    """Return the SDK's own OAuth client, with a browser that signs in."""
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
    return OAuthClientProvider(endpoint, metadata, storage, open_page, come_back)


async def _list_and_call(endpoint: str, storage: MemoryTokenStorage) -> tuple[set[str], bool]:
    """Return a client's tools, and whether a call of one failed."""
    async with (
        httpx2.AsyncClient(auth=provider(endpoint, storage), timeout=60) as http,
        streamable_http_client(endpoint, http_client=http) as streams,
        ClientSession(*streams[:2]) as session,
    ):
        await session.initialize()
        tools = await session.list_tools()
        result = await session.call_tool(tools.tools[0].name, {"text": "hello"})
        return {tool.name for tool in tools.tools}, bool(result.is_error)


def test_a_client_discovers_the_server_and_calls_for_a_person_until_revoked(
    launched: Launched,
) -> None:
    storage = MemoryTokenStorage()
    endpoint = launched.ready["endpoint"]
    assert asyncio.run(_list_and_call(endpoint, storage)) == ({"echo__say"}, False)
    hers = "SELECT key, detail FROM events WHERE user = person('ann') AND event ="
    (called,) = launched.eventual_rows(f"{hers} 'call.allowed'")
    assert called["key"].startswith("staff:")
    (given,) = launched.eventual_rows(f"{hers} 'grant.created'")
    assert storage.token not in called["detail"] + given["detail"]
    assert "ann" not in called["key"]

    client = Client(endpoint, storage.token)
    assert client.tools() == ["echo__say"]
    assert client.call("echo__count").code == "unknown_tool"
    elsewhere = Client(f"{endpoint}/echo", storage.token).request("tools/list")
    assert elsewhere.status == 401
    assert 'error="invalid_token"' in elsewhere.headers["www-authenticate"]

    listed = launched.toolbus("grants", "list", "--json")
    (grant,) = [line for line in listed.stdout.splitlines() if '"id"' in line]
    ended = launched.toolbus("grants", "revoke", grant.split('"')[3])
    assert ended.returncode == 0, ended.stderr
    until_blocking(lambda: client.request("tools/list").status == 401, "the token is invalid")
    assert storage.token not in launched.logs()


def test_an_endpoint_of_one_server_has_its_own_metadata_and_tokens(launched: Launched) -> None:
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
    assert asyncio.run(_list_and_call(endpoint, MemoryTokenStorage())) == ({"say"}, False)


async def _counted(endpoint: str, storage: MemoryTokenStorage) -> tuple[set[str], str]:
    """Return the tools of bo's client, and the result of one outside its first scope."""
    async with (
        httpx2.AsyncClient(auth=provider(endpoint, storage, "bo"), timeout=60) as http,
        streamable_http_client(endpoint, http_client=http) as streams,
        ClientSession(*streams[:2]) as session,
    ):
        await session.initialize()
        began = storage.tokens and storage.tokens.scope
        assert began == "tools:saying"
        tools = await session.list_tools()
        result = await session.call_tool("echo__count", {"id": "seven"})
        return {tool.name for tool in tools.tools}, str(result.content[0])


def test_a_client_requests_a_further_scope_when_a_call_needs_it(launched: Launched) -> None:
    storage, endpoint = MemoryTokenStorage(), launched.ready["endpoint"]
    tools, result = asyncio.run(_counted(endpoint, storage))
    assert {"echo__say", "echo__count", "echo__wait"} <= tools
    assert "seven" in result
    assert storage.tokens is not None
    assert set((storage.tokens.scope or "").split()) == {"tools:saying", "tools:counting"}
    refused = Client(endpoint, storage.token).call("echo__wait", {"id": "x", "seconds": 0})
    assert (refused.status, refused.code) == (403, "insufficient_scope")
    challenge = refused.headers["www-authenticate"]
    base = endpoint.removesuffix("/mcp")
    where = f'resource_metadata="{base}/.well-known/oauth-protected-resource/mcp"'
    assert f'error="insufficient_scope", scope="tools", {where}' in challenge
    bos = "SELECT detail FROM events WHERE user = person('bo') AND event = 'call.denied'"
    rows = launched.eventual_rows(bos, lambda rows: len(rows) >= 2)
    assert all("insufficient_scope" in row["detail"] for row in rows)


def token_of(launched: Launched, resource: str, scope: str) -> str:
    """Return an access token of cy's, from the device flow."""
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
def gateway(launched: Launched) -> Launched:
    """Add a client of the device flow."""
    words = ("clients", "add", "The command", "--id", "toolbus", "--public")
    assert launched.toolbus(*words).returncode == 0
    return launched


def test_a_person_with_a_role_administers_with_a_token_and_is_named(gateway: Launched) -> None:
    endpoint = gateway.ready["endpoint"]
    base = endpoint.removesuffix("/mcp")
    command = [installed("toolbus"), "admins", "login", "--url", base]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=gateway.environment
    ) as login:
        assert login.stderr is not None
        allowed_by_cy(Browser(base), login.stderr.readline().split()[1])
        result, _ = login.communicate(timeout=120)
    token = result.strip()
    cy = at(gateway, token)
    self_ = cy.request("GET", "/v1/self").json
    assert (self_["name"], self_["role"]) == ("cy", "operator")
    created = cy.request("POST", "/v1/keys", {"name": "made-by-cy", "tools": []})
    assert created.status == 201, created.body
    assert why(cy.request("PUT", "/v1/teams/x", {})) == "forbidden"
    hers = "SELECT by FROM config_changes WHERE by = person('cy') AND name = 'made-by-cy'"
    assert gateway.eventual_rows(hers)
    assert Client(endpoint, token).request("tools/list").status == 401
    assert token not in gateway.logs()


def test_a_read_only_token_changes_nothing_and_names_the_required_scope(gateway: Launched) -> None:
    look = at(gateway, token_of(gateway, "/api", "admin:read"))
    assert look.request("GET", "/v1/keys").status == 200
    refused = look.request("POST", "/v1/keys/root/revoke")
    assert (refused.status, why(refused)) == (403, "insufficient_scope")
    base = look.base
    document = f"{base}/.well-known/oauth-protected-resource/api"
    assert f'scope="admin", resource_metadata="{document}"' in refused.headers["www-authenticate"]
    assert Client(base).get(document).json["resource"] == f"{base}/api"
    unknown = at(gateway).request("GET", "/v1/self").headers["www-authenticate"]
    assert f'scope="admin:read", resource_metadata="{document}"' in unknown


def test_an_approver_cannot_decide_their_own_call_with_a_second_token(gateway: Launched) -> None:
    tools = token_of(gateway, "/mcp", "tools")
    assert at(gateway, tools).request("GET", "/v1/self").status == 401
    waits = Client(gateway.ready["endpoint"], tools).call("echo__say", {"text": "hello"})
    assert waits.code == "approval_required"
    approval = waits.error["data"]["approval"]
    cy = at(gateway, token_of(gateway, "/api", "admin"))
    own = cy.request("POST", f"/v1/approvals/{approval}/approve", {})
    assert (own.status, why(own)) == (403, "forbidden")


def bound_token(base: str, holder: Holder) -> str:
    """Return a token of ann's for `/mcp`, bound to this key."""
    about = {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}
    client = Client(f"{base}/oauth/register").post(about).json["client_id"]
    browser = Browser(base)
    parameters = authorization_request(client, redirect_uri=REDIRECT, resource=f"{base}/mcp")
    shown = browser.get(f"{base}/oauth/authorize?{urlencode(parameters)}")
    code = browser.answer(browser.sign_in(shown, "ann", PASSWORD)).parameters["code"]
    form = {"grant_type": "authorization_code", "client_id": client, "code": code}
    form |= {"code_verifier": VERIFIER, "redirect_uri": REDIRECT}
    proof = holder.proof("POST", f"{base}/oauth/token")
    sent = {"Content_Type": FORM["content-type"], "DPoP": proof}
    body = Client(f"{base}/oauth/token").post(urlencode(form).encode(), **sent).json
    assert body["token_type"] == "DPoP"
    return str(body["access_token"])


def test_a_bound_token_is_invalid_without_its_key(
    launched: Launched,
) -> None:
    endpoint, holder = launched.ready["endpoint"], Holder()
    base = endpoint.removesuffix("/mcp")
    token = bound_token(base, holder)

    def list_tools(scheme: str, proof: str) -> Answer:
        return Client(endpoint).request("tools/list", Authorization=f"{scheme} {token}", DPoP=proof)

    stolen = holder.proof("POST", endpoint, token)
    assert list_tools("DPoP", stolen).json["result"]["tools"][0]["name"] == "echo__say"
    for refused in (
        list_tools("DPoP", stolen),
        list_tools("DPoP", Holder().proof("POST", endpoint, token)),
        list_tools("DPoP", holder.proof("POST", f"{base}/oauth/token")),
        list_tools("DPoP", holder.proof("POST", f"{endpoint}/echo", token)),
        list_tools("Bearer", holder.proof("POST", endpoint, token)),
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
