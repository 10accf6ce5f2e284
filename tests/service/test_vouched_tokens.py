"""Tokens nobody agrees to: a provider vouches for a person, or what Toolbus runs on for it."""

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
class Vouching(ConnectFlow):
    """People who sign in at a company's provider."""

    corp: Provider

    @property
    def people(self) -> dict[str, Any]:
        """What is declared of them."""
        return {"issuers": {"corp": issuer(self.corp)}, "users": {"ann": {}}, "access": STAFF}

    async def vouched(self, url: str, far: OAuthServer) -> None:
        """Have people vouched for at that server."""
        clients = {far.issuer: {"id": THERE}}
        fields = {"tokens": "user", "grant": "enterprise", "provider": "corp"}
        await self.declare(url, **fields, clients=clients)

    async def signed_in(self, page: Page) -> Page:
        """Sign in at the provider."""
        leaving = await self.walker.post("/oauth/sign-in", ticket=page.ticket, issuer="corp")
        return await self.walker.get(self.corp.arrive(leaving.link))

    async def connected(self) -> Page:
        """The whole way: from the link to the page that says so."""
        page = await self.walker.get((await self.request()).link)
        return await self.allowed(await self.signed_in(page))


@pytest.fixture
async def asking(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, corp: Provider
) -> AsyncIterator[Vouching]:
    async with executor_connection(settings, operator, monkeypatch) as parts:
        yield Vouching(*parts, corp)


async def test_a_provider_vouches_for_who_signed_in_there_and_for_nobody_else(
    asking: Vouching, far: OAuthServer, corp: Provider, docs: Resource
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
    assert request["subject_token"] not in str(brought), "ID tokens are for who gave them"
    assert (await asking.request("bob")).token == ""


async def test_who_signs_in_for_an_agent_needs_no_page_for_the_server(
    asking: Vouching, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    client = await asking.server.register()
    page = await asking.walker.get("/oauth/authorize", **asked_by(client["client_id"]))
    await asking.signed_in(page)
    assert (await asking.request()).token.startswith("far~")


@pytest.mark.parametrize("word", [{"aud": "https://else.test"}, {"client_id": "somebody"}])
async def test_a_word_for_somebody_else_is_not_sent_on(
    asking: Vouching, far: OAuthServer, corp: Provider, docs: Resource, word: dict[str, str]
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    corp.say(word=word)
    before = len(far.seen(JWT_BEARER))
    assert "for another audience or client" in (await asking.connected()).text
    assert "for another audience or client" in (await asking.request()).reason
    assert len(far.seen(JWT_BEARER)) == before


async def test_an_authorization_server_that_is_not_declared_is_shown_no_word(
    asking: Vouching, far: OAuthServer, corp: Provider, docs: Resource
) -> None:
    docs.names(far.issuer)
    clients = {"https://else.test": {"id": THERE}}
    fields = {"tokens": "user", "grant": "enterprise", "provider": "corp", "clients": clients}
    await asking.declare(docs.url, **fields)
    before = len(corp.exchanges())
    assert f"no client is configured for {far.issuer}" in (await asking.request()).reason
    assert len(corp.exchanges()) == before


async def test_the_provider_is_asked_for_each_token_anew_and_its_no_counts(
    asking: Vouching, far: OAuthServer, corp: Provider, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    far.say(seconds=4)  # too short to be used again
    await asking.connected()
    corp.say(refuses="access_denied")
    reply = await asking.request()
    assert (reply.token, reply.link) == ("", "")
    assert "'corp' denies the identity assertion" in reply.reason


async def test_what_it_said_is_renewed_where_it_can_be_and_else_they_sign_in_anew(
    asking: Vouching, far: OAuthServer, corp: Provider, docs: Resource
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
    assert (await asking.request()).link, "nobody renews it: ann signs in once more"


async def test_who_was_cut_off_by_an_operator_signs_in_anew(
    asking: Vouching, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    await asking.connected()
    await asking.server.action("end_connection", "docs", user="ann")
    page = await asking.walker.get((await asking.request()).link)
    page = await asking.walker.post("/oauth/connect", ticket=page.ticket, answer="allow")
    assert 'name="issuer"' in page.text, "the browser's session is not enough"


async def test_who_ends_their_own_connection_is_not_connected_again_by_the_next_call(
    asking: Vouching, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.vouched(docs.url, far)
    await asking.connected()
    page = await asking.walker.get("/oauth/account")
    await asking.walker.post("/oauth/account", ticket=page.ticket, server="docs")
    reply = await asking.request()
    assert (reply.token, bool(reply.link)) == ("", True)


async def test_what_toolbus_runs_on_vouches_for_it_with_a_token_of_a_file(
    asking: Vouching, far: OAuthServer, docs: Resource, tmp_path: Path
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
    assert len(far.seen(JWT_BEARER)) == request, "what has expired is shown to nobody"


async def test_a_token_of_a_file_proves_a_client_in_the_place_of_a_signature(
    asking: Vouching, far: OAuthServer, docs: Resource, tmp_path: Path
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
    kept = directory / "token"
    kept.write_text(f"{token}\n")
    return {far.issuer: {"id": "toolbus", "assertion": f"${{file:{kept}}}"}}


def _signed(key: ECKey, audience: str, seconds: int) -> str:
    now = int(time.time())
    claims = {
        "iss": "https://cluster.test",
        "sub": "toolbus",
        "aud": audience,
        "exp": now + seconds,
    }
    return jwt.encode({"alg": "ES256"}, claims, key, algorithms=["ES256"])
