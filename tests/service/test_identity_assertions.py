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
def far(running: tuple[OAuthServer, Provider]) -> OAuthServer:
    far, provider = running[0].as_ever(), running[1].as_ever()
    far.say(jwks=provider.keys())
    return far


@pytest.fixture
def corp(running: tuple[OAuthServer, Provider]) -> Provider:
    return running[1]


@dataclass
class CompanyUsers(ConnectFlow):
    """Persons who sign in at a company's provider."""

    corp: Provider

    @property
    def people(self) -> dict[str, Any]:
        """The configuration of the persons."""
        return {"issuers": {"corp": issuer(self.corp)}, "users": {"ann": {}}, "access": STAFF}

    async def vouched(self, url: str, far: OAuthServer) -> None:
        """Configure the server with identity assertions of the provider."""
        clients = {far.issuer: {"id": THERE}}
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
async def asking(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, corp: Provider
) -> AsyncIterator[CompanyUsers]:
    async with executor_connection(settings, operator, monkeypatch) as parts:
        yield CompanyUsers(*parts, corp)


async def test_a_provider_asserts_only_the_identity_of_the_signed_in_person(
    asking: CompanyUsers, far: OAuthServer, corp: Provider, docs: Resource
) -> None:
    docs.names(far.issuer, scopes_supported=["read"])
    await asking.vouched(docs.url, far)
    assert "Connected" in (await asking.connected()).text
    assert (await asking.request()).token.startswith("far~")
    request = corp.exchanges()[-1]
    assert (request["audience"], request["resource"]) == (far.issuer, docs.url)
    assert request["scope"] == "read"
    assert request["subject_token_type"].endswith(":id_token")
    brought = far.seen(JWT_BEARER)[-1]
    assert parse_unverified(brought["assertion"])[1]["aud"] == far.issuer
    assert request["subject_token"] not in str(brought), "the ID token stays with its provider"
    assert (await asking.request("bob")).token == ""


async def test_a_sign_in_for_an_agent_needs_no_page_for_the_server(
    asking: CompanyUsers, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    client = await asking.server.register()
    page = await asking.walker.get("/oauth/authorize", **asked_by(client["client_id"]))
    await asking.signed_in(page)
    assert (await asking.request()).token.startswith("far~")


@pytest.mark.parametrize("word", [{"aud": "https://else.test"}, {"client_id": "somebody"}])
async def test_an_assertion_for_another_audience_or_client_is_not_sent(
    asking: CompanyUsers, far: OAuthServer, corp: Provider, docs: Resource, word: dict[str, str]
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    corp.say(word=word)
    before = len(far.seen(JWT_BEARER))
    assert "for another audience or client" in (await asking.connected()).text
    assert "for another audience or client" in (await asking.request()).reason
    assert len(far.seen(JWT_BEARER)) == before


async def test_an_unconfigured_authorization_server_gets_no_assertion(
    asking: CompanyUsers, far: OAuthServer, corp: Provider, docs: Resource
) -> None:
    docs.names(far.issuer)
    clients = {"https://else.test": {"id": THERE}}
    fields = {"tokens": "user", "grant": "enterprise", "provider": "corp", "clients": clients}
    await asking.declare(docs.url, **fields)
    before = len(corp.exchanges())
    assert f"no client is configured for {far.issuer}" in (await asking.request()).reason
    assert len(corp.exchanges()) == before


async def test_each_token_needs_another_assertion_and_its_denial_counts(
    asking: CompanyUsers, far: OAuthServer, corp: Provider, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    far.say(seconds=4)  # too short to be used again
    await asking.connected()
    corp.say(refuses="access_denied")
    reply = await asking.request()
    assert (reply.token, reply.link) == ("", "")
    assert "'corp' denies the identity assertion" in reply.reason


async def test_the_id_token_is_renewed_where_possible_and_else_needs_a_sign_in(
    asking: CompanyUsers, far: OAuthServer, corp: Provider, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    far.say(seconds=4)
    corp.say(seconds=20, renews=True)
    await asking.connected()
    corp.say(seconds=600)
    assert (await asking.request()).token.startswith("far~")
    first, second = (each["subject_token"] for each in corp.exchanges()[-2:])
    assert parse_unverified(second)[1]["exp"] > parse_unverified(first)[1]["exp"] + 300
    corp.say(seconds=20, renews=False)
    await asking.server.action("end_connection", "docs", user="ann")
    await asking.connected()
    assert (await asking.request()).link, "without a renewal ann signs in again"


async def test_a_person_disconnected_by_an_operator_signs_in_again(
    asking: CompanyUsers, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    await asking.connected()
    await asking.server.action("end_connection", "docs", user="ann")
    page = await asking.walker.get((await asking.request()).link)
    page = await asking.walker.post("/oauth/connect", ticket=page.ticket, answer="allow")
    assert 'name="issuer"' in page.text, "the browser's session is not enough"


async def test_a_person_who_disconnects_is_not_connected_again_by_the_next_call(
    asking: CompanyUsers, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    await asking.connected()
    page = await asking.walker.get("/oauth/account")
    await asking.walker.post("/oauth/account", ticket=page.ticket, server="docs")
    reply = await asking.request()
    assert (reply.token, bool(reply.link)) == ("", True)


async def test_a_workload_token_of_a_file_is_the_assertion(
    asking: CompanyUsers, far: OAuthServer, docs: Resource, tmp_path: Path
) -> None:
    docs.names(far.issuer)
    keys = ECKey.generate_key("P-256")
    far.say(jwks={"keys": [keys.as_dict(private=False)]})
    token = _signed(keys, far.issuer, 300)
    await asking.declare(docs.url, grant="workload", clients=_workload(far, tmp_path, token))
    assert (await asking.request("")).token.startswith("far~")
    assert far.seen(JWT_BEARER)[-1]["assertion"] == token
    request = len(far.seen(JWT_BEARER))
    old = _signed(keys, far.issuer, -60)
    await asking.declare(docs.url, grant="workload", clients=_workload(far, tmp_path / "2", old))
    await asking.server.action("end_connection", "docs", user="")
    assert "has expired" in (await asking.request("")).reason
    assert len(far.seen(JWT_BEARER)) == request, "an expired token is not sent"


async def test_a_workload_token_of_a_file_authenticates_the_client(
    asking: CompanyUsers, far: OAuthServer, docs: Resource, tmp_path: Path
) -> None:
    docs.names(far.issuer)
    token = _signed(ECKey.generate_key("P-256"), far.issuer, 300)
    clients = _workload(far, tmp_path, token)
    await asking.declare(docs.url, grant="client_credentials", clients=clients)
    assert (await asking.request("")).token.startswith("far~")
    request = far.seen("client_credentials")[-1]
    assert request["client_assertion"] == token
    assert "assertion" not in request


def _workload(far: OAuthServer, directory: Path, token: str) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    file = directory / "token"
    file.write_text(f"{token}\n")
    return {far.issuer: {"id": "toolbus", "assertion": f"${{file:{file}}}"}}


def _signed(key: ECKey, audience: str, seconds: int) -> str:
    now = int(time.time())
    claims = {
        "iss": "https://cluster.test",
        "sub": "toolbus",
        "aud": audience,
        "exp": now + seconds,
    }
    return jwt.encode({"alg": "ES256"}, claims, key, algorithms=["ES256"])
