"""Upstream tokens without a consent page: identity assertions and workload tokens."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from harness.clients.form_browser import Page
from harness.oauth.openid_process import Provider, issuer
from harness.oauth.protected_processes import OAuthServer, Resource
from harness.services.authorization_service import authorization_request as asked_by
from harness.services.oauth_connections import ConnectFlow, executor_connection
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings
from toolbus_oauth.keys.unverified_jwt import parse_unverified

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
STAFF = {"staff": {"issuer": "corp", "claims": {"groups": "staff"}, "tools": ["docs__*"]}}
THERE = "gateway-there"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OAuthServer, Provider]]:
    with (
        OAuthServer(tmp_path_factory.mktemp("far")).running() as far,
        Provider(tmp_path_factory.mktemp("corp")).running() as corp,
    ):
        yield far, corp


@pytest.fixture
def oauth_server(running: tuple[OAuthServer, Provider]) -> OAuthServer:
    oauth_server, provider = running[0].as_ever(), running[1].as_ever()
    oauth_server.say(jwks=provider.keys())
    return oauth_server


@pytest.fixture
def provider(running: tuple[OAuthServer, Provider]) -> Provider:
    return running[1]


@dataclass
class CompanyUsers(ConnectFlow):
    """Persons who sign in at a company's provider."""

    corp: Provider

    @property
    def people(self) -> dict[str, Any]:
        """The configuration of the persons."""
        return {"issuers": {"corp": issuer(self.corp)}, "users": {"ann": {}}, "access": STAFF}

    async def vouched(self, url: str, oauth_server: OAuthServer) -> None:
        """Configure the server with identity assertions of the provider."""
        clients = {oauth_server.issuer: {"id": THERE}}
        fields = {"tokens": "user", "grant": "enterprise", "provider": "corp"}
        await self.declare(url, **fields, clients=clients)

    async def signed_in(self, page: Page) -> Page:
        """Sign in at the provider."""
        leaving = await self.walker.post("/oauth/sign-in", ticket=page.ticket, issuer="corp")
        return await self.walker.get(self.corp.arrive(leaving.link))

    async def connected(self) -> Page:
        """Connect, from the link to the last page."""
        page = await self.walker.get((await self.request()).link)
        return await self.allowed(await self.signed_in(page))


@pytest.fixture
async def company(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> AsyncIterator[CompanyUsers]:
    async with executor_connection(settings, operator, monkeypatch) as parts:
        yield CompanyUsers(*parts, provider)


async def test_a_provider_asserts_only_the_identity_of_the_signed_in_person(
    company: CompanyUsers, oauth_server: OAuthServer, provider: Provider, docs: Resource
) -> None:
    docs.names(oauth_server.issuer, scopes_supported=["read"])
    await company.vouched(docs.url, oauth_server)
    assert "Connected" in (await company.connected()).text
    assert (await company.request()).token.startswith("far~")
    request = provider.exchanges()[-1]
    assert (request["audience"], request["resource"]) == (oauth_server.issuer, docs.url)
    assert request["scope"] == "read"
    assert request["subject_token_type"].endswith(":id_token")
    brought = oauth_server.seen(JWT_BEARER)[-1]
    assert parse_unverified(brought["assertion"])[1]["aud"] == oauth_server.issuer
    assert request["subject_token"] not in str(brought), "the ID token stays with its provider"
    assert (await company.request("bob")).token == ""


async def test_a_sign_in_for_an_agent_needs_no_page_for_the_server(
    company: CompanyUsers, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await company.vouched(docs.url, oauth_server)
    client = await company.server.register()
    page = await company.walker.get("/oauth/authorize", **asked_by(client["client_id"]))
    await company.signed_in(page)
    assert (await company.request()).token.startswith("far~")


@pytest.mark.parametrize("word", [{"aud": "https://else.test"}, {"client_id": "somebody"}])
async def test_an_assertion_for_another_audience_or_client_is_not_sent(
    company: CompanyUsers,
    oauth_server: OAuthServer,
    provider: Provider,
    docs: Resource,
    word: dict[str, str],
) -> None:
    docs.names(oauth_server.issuer)
    await company.vouched(docs.url, oauth_server)
    provider.say(word=word)
    before = len(oauth_server.seen(JWT_BEARER))
    assert "for another audience or client" in (await company.connected()).text
    assert "for another audience or client" in (await company.request()).reason
    assert len(oauth_server.seen(JWT_BEARER)) == before


async def test_an_unconfigured_authorization_server_gets_no_assertion(
    company: CompanyUsers, oauth_server: OAuthServer, provider: Provider, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    clients = {"https://else.test": {"id": THERE}}
    fields = {"tokens": "user", "grant": "enterprise", "provider": "corp", "clients": clients}
    await company.declare(docs.url, **fields)
    before = len(provider.exchanges())
    assert f"no client is configured for {oauth_server.issuer}" in (await company.request()).reason
    assert len(provider.exchanges()) == before


async def test_each_token_needs_another_assertion_and_its_denial_counts(
    company: CompanyUsers, oauth_server: OAuthServer, provider: Provider, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await company.vouched(docs.url, oauth_server)
    oauth_server.say(seconds=4)  # too short to be used again
    await company.connected()
    provider.say(refuses="access_denied")
    reply = await company.request()
    assert (reply.token, reply.link) == ("", "")
    assert "'corp' denies the identity assertion" in reply.reason


async def test_the_id_token_is_renewed_where_possible_and_else_needs_a_sign_in(
    company: CompanyUsers, oauth_server: OAuthServer, provider: Provider, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await company.vouched(docs.url, oauth_server)
    oauth_server.say(seconds=4)
    provider.say(seconds=20, renews=True)
    await company.connected()
    provider.say(seconds=600)
    assert (await company.request()).token.startswith("far~")
    first, second = (each["subject_token"] for each in provider.exchanges()[-2:])
    assert parse_unverified(second)[1]["exp"] > parse_unverified(first)[1]["exp"] + 300
    provider.say(seconds=20, renews=False)
    await company.server.action("end_connection", "docs", user="ann")
    await company.connected()
    assert (await company.request()).link, "without a renewal ann signs in again"


async def test_a_person_disconnected_by_an_operator_signs_in_again(
    company: CompanyUsers, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await company.vouched(docs.url, oauth_server)
    await company.connected()
    await company.server.action("end_connection", "docs", user="ann")
    page = await company.walker.get((await company.request()).link)
    page = await company.walker.post("/oauth/connect", ticket=page.ticket, answer="allow")
    assert 'name="issuer"' in page.text, "the browser's session is not enough"


async def test_a_person_who_disconnects_is_not_connected_again_by_the_next_call(
    company: CompanyUsers, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await company.vouched(docs.url, oauth_server)
    await company.connected()
    page = await company.walker.get("/oauth/account")
    await company.walker.post("/oauth/account", ticket=page.ticket, server="docs")
    reply = await company.request()
    assert (reply.token, bool(reply.link)) == ("", True)


async def test_a_workload_token_of_a_file_is_the_assertion(
    company: CompanyUsers, oauth_server: OAuthServer, docs: Resource, tmp_path: Path
) -> None:
    docs.names(oauth_server.issuer)
    keys = ECKey.generate_key("P-256")
    oauth_server.say(jwks={"keys": [keys.as_dict(private=False)]})
    token = _signed(keys, oauth_server.issuer, 300)
    await company.declare(
        docs.url, grant="workload", clients=_workload(oauth_server, tmp_path, token)
    )
    assert (await company.request("")).token.startswith("far~")
    assert oauth_server.seen(JWT_BEARER)[-1]["assertion"] == token
    request = len(oauth_server.seen(JWT_BEARER))
    old = _signed(keys, oauth_server.issuer, -60)
    await company.declare(
        docs.url, grant="workload", clients=_workload(oauth_server, tmp_path / "2", old)
    )
    await company.server.action("end_connection", "docs", user="")
    assert "has expired" in (await company.request("")).reason
    assert len(oauth_server.seen(JWT_BEARER)) == request, "an expired token is not sent"


async def test_a_workload_token_of_a_file_authenticates_the_client(
    company: CompanyUsers, oauth_server: OAuthServer, docs: Resource, tmp_path: Path
) -> None:
    docs.names(oauth_server.issuer)
    token = _signed(ECKey.generate_key("P-256"), oauth_server.issuer, 300)
    clients = _workload(oauth_server, tmp_path, token)
    await company.declare(docs.url, grant="client_credentials", clients=clients)
    assert (await company.request("")).token.startswith("far~")
    request = oauth_server.seen("client_credentials")[-1]
    assert request["client_assertion"] == token
    assert "assertion" not in request


def _workload(oauth_server: OAuthServer, directory: Path, token: str) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    file = directory / "token"
    file.write_text(f"{token}\n")
    return {oauth_server.issuer: {"id": "toolbus", "assertion": f"${{file:{file}}}"}}


def _signed(key: ECKey, audience: str, seconds: int) -> str:
    now = int(time.time())
    claims = {
        "iss": "https://cluster.test",
        "sub": "toolbus",
        "aud": audience,
        "exp": now + seconds,
    }
    return jwt.encode({"alg": "ES256"}, claims, key, algorithms=["ES256"])
