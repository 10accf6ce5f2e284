"""The oauth service as a client of other authorization servers, on a real bus."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace

from harness.audit.events import bus_of
from harness.clients.form_browser import Page
from harness.engines.http_engine import redirect_of
from harness.oauth.protected_processes import WELL_KNOWN, OAuthServer, Resource
from harness.services.authorization_service import BASE, ServiceBrowser
from harness.services.oauth_connections import (
    DOCUMENT,
    ConnectFlow,
    connection_store,
    executor_connection,
    redirected_back,
)
from toolbus_common.contracts import UpstreamTokenQuery, UpstreamTokenReply
from toolbus_common.errors import InvalidError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_oauth.main import build
from toolbus_oauth.upstreams.connections.records import Connection

TAKES_DOCUMENTS = "client_id_metadata_document_supported"
NAMES_ITSELF = "authorization_response_iss_parameter_supported"


@pytest.fixture(scope="module")
def second_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    with OAuthServer(tmp_path_factory.mktemp("oauth")).running() as server:
        yield server


@pytest.fixture
def second_server(second_process: OAuthServer) -> OAuthServer:
    return second_process.as_ever()


async def test_a_token_is_for_the_server_and_the_person_of_the_consent(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await flow.declare(docs.url, tokens="user")
    sent = await flow.sent()
    assert sent.parameters["resource"] == docs.url
    assert sent.parameters["code_challenge_method"] == "S256"
    done = await flow.walker.get(redirected_back(sent))
    assert "Connected" in done.text
    assert (await flow.request()).token.startswith("far~")
    assert (await flow.request("bob")).token == ""
    exchanged = oauth_server.seen("authorization_code")[-1]
    assert exchanged["resource"] == docs.url
    assert exchanged["redirect_uri"] == sent.parameters["redirect_uri"]


async def test_a_token_is_not_used_for_another_address(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await flow.declare(docs.url, tokens="user")
    await flow.connected()
    assert (await flow.request()).token
    await flow.declare(f"{docs.origin}/elsewhere", tokens="user")
    assert (await flow.request()).token == ""


async def test_a_link_is_valid_for_its_person_in_one_browser_and_its_state_once(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await flow.declare(docs.url, tokens="user")
    sent = await flow.sent()
    back = redirected_back(sent)
    stranger = ServiceBrowser(flow.server)
    assert (await stranger.get(back)).status == 403
    again = redirected_back(await flow.sent())
    assert (await flow.walker.get(again)).status == 200
    assert (await flow.walker.get(again)).status == 400
    assert (await flow.walker.get("/oauth/connected", state="made-up", code="c")).status == 400


@pytest.mark.parametrize("named", ["https://evil.test", None])
async def test_an_answer_of_another_issuer_or_without_one_is_rejected(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, named: str | None
) -> None:
    docs.names(oauth_server.issuer)
    await flow.declare(docs.url, tokens="user")
    oauth_server.say(iss=named)
    before = len(oauth_server.seen("authorization_code"))
    page = await flow.connected()
    assert page.status == 403
    assert len(oauth_server.seen("authorization_code")) == before
    assert (await flow.request()).token == ""


async def test_an_answer_without_an_issuer_is_not_sent_to_another_server(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, second_server: OAuthServer
) -> None:
    for each in (oauth_server, second_server):
        each.say(iss=None, document={NAMES_ITSELF: False})
    docs.names(oauth_server.issuer)
    await flow.declare(docs.url, tokens="user")
    # The client's identity there, as the other server can learn it.
    honest = (await flow.sent()).parameters
    docs.names(second_server.issuer, "/evil")
    await flow.declare(f"{docs.origin}/evil", tokens="user")
    own = {name: honest[name] for name in ("client_id", "redirect_uri", "resource")}
    sent = await flow.sent()
    back = redirect_of(f"{oauth_server.issuer}/authorize?{urlencode(sent.parameters | own)}")
    assert f"state={sent.parameters['state']}" in back
    assert "code=" in back
    before = len(second_server.seen("authorization_code"))
    assert (await flow.walker.get(back)).status == 403
    assert len(second_server.seen("authorization_code")) == before
    assert (await flow.connected()).status == 200


async def test_the_client_document_is_used_only_at_issuers_that_name_themselves(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource
) -> None:
    shared = f"{BASE}/oauth/connected"

    async def sent(path: str, *, names: bool, **oauth: Any) -> Page:
        oauth_server.say(document={TAKES_DOCUMENTS: True, NAMES_ITSELF: names})
        docs.names(oauth_server.issuer, path)
        await flow.declare(f"{docs.origin}{path}", tokens="user", **oauth)
        return await flow.sent()

    there = await sent("/names", names=True)
    assert (there.parameters["client_id"], there.parameters["redirect_uri"]) == (DOCUMENT, shared)
    assert (await flow.walker.get(shared, state=there.parameters["state"], code="c")).status == 403
    there = await sent("/names-not", names=False)
    assert there.parameters["client_id"] != DOCUMENT
    assert there.parameters["redirect_uri"].startswith(f"{shared}/")
    there = await sent("/claims", names=False, clients={oauth_server.issuer: {"id": DOCUMENT}})
    assert there.parameters["redirect_uri"].startswith(f"{shared}/")


async def test_without_a_usable_registration_the_reason_names_the_fix(
    flow: ConnectFlow, second_server: OAuthServer, docs: Resource
) -> None:
    second_server.say(
        document={TAKES_DOCUMENTS: True, NAMES_ITSELF: False, "registration_endpoint": None}
    )
    docs.names(second_server.issuer)
    await flow.declare(docs.url, tokens="user")
    reply = await flow.request()
    assert "RFC 9207" in reply.reason
    assert f"redirect URI {BASE}/oauth/connected/" in reply.reason


@pytest.mark.parametrize(
    ("resource", "document", "why"),
    [
        ("https://elsewhere.test/mcp", {}, "another resource"),
        ("", {"issuer": "https://evil.test"}, "another issuer"),
        ("", {"code_challenge_methods_supported": ["plain"]}, "PKCE with S256"),
        ("", {"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"),
    ],
)
async def test_inconsistent_metadata_is_rejected(
    flow: ConnectFlow,
    oauth_server: OAuthServer,
    docs: Resource,
    resource: str,
    document: Any,
    why: str,
) -> None:
    docs.names(oauth_server.issuer, **({"resource": resource} if resource else {}))
    oauth_server.say(document=document)
    await flow.declare(docs.url, tokens="user")
    reply = await flow.request()
    assert reply.link == ""
    assert why in reply.reason


async def test_metadata_lead_to_no_forbidden_address(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, docs: Resource
) -> None:
    monkeypatch.setenv("TOOLBUS_EGRESS_ALLOW", "")
    with Resource().serving() as inside:
        async with executor_connection(settings, operator, monkeypatch) as parts:
            asking = ConnectFlow(*parts)
            await asking.declare(docs.url, tokens="user")  # the server's own address is confirmed
            for metadata in (f"{inside.origin}/x", "http://169.254.169.254/x", "file:///etc"):
                challenge = f'Bearer resource_metadata="{metadata}"'
                assert not (await asking.request(challenge=challenge)).link
            docs.names(inside.origin)
            reply = await asking.request()
            assert "TOOLBUS_EGRESS_ALLOW" in reply.reason
        assert inside.hits == []
        assert WELL_KNOWN in docs.hits


async def test_a_server_with_a_new_issuer_sends_it_nothing_of_the_first(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, second_server: OAuthServer
) -> None:
    docs.names(oauth_server.issuer)
    clients = {oauth_server.issuer: {"id": "declared-there"}}
    await flow.declare(docs.url, tokens="user", clients=clients)
    assert (await flow.sent()).parameters["client_id"] == "declared-there"
    docs.names(second_server.issuer)
    await asyncio.sleep(1.1)  # metadata are cached for a second
    reply = await flow.request(challenge=f'Bearer resource_metadata="{docs.origin}{WELL_KNOWN}"')
    page = await flow.walker.get(reply.link)
    sent = await flow.walker.post("/oauth/connect", ticket=page.ticket, answer="allow")
    assert sent.location.startswith(second_server.issuer)
    assert sent.parameters["client_id"] != "declared-there"


async def test_further_scopes_are_requested_with_the_earlier_ones_and_only_once(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer, scopes_supported=["read"])
    await flow.declare(docs.url, tokens="user")
    await flow.connected()
    token = (await flow.request()).token
    challenge = 'Bearer error="insufficient_scope", scope="write"'
    refused = sha256(token.encode()).hexdigest()
    reply = await flow.request(challenge=challenge, rejected=refused)
    page = await flow.walker.get(reply.link)
    sent = await flow.walker.post("/oauth/connect", ticket=page.ticket, answer="allow")
    assert sent.parameters["scope"] == "read write"
    await flow.walker.get(redirected_back(sent))
    refused = sha256((await flow.request()).token.encode()).hexdigest()
    again = await flow.request(challenge=challenge, rejected=refused)
    assert (again.link, again.token) == ("", "")
    assert "already requested" in again.reason


async def test_a_shared_token_is_requested_once_with_the_configured_credentials(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.names(oauth_server.issuer, scopes_supported=["read"])
    monkeypatch.setenv("FAR_SECRET", "a secret of ours")
    client = {"id": "gateway", "secret": "${env:FAR_SECRET}"}
    await flow.declare(docs.url, grant="client_credentials", clients={oauth_server.issuer: client})
    reply = await asyncio.gather(*(flow.request("") for _ in range(10)))
    assert len({each.token for each in reply}) == 1
    assert reply[0].token.startswith("far~")
    request = oauth_server.seen("client_credentials")
    assert len(request) == 1
    assert (request[0]["scope"], request[0]["resource"]) == ("read", docs.url)


async def test_expiring_tokens_are_renewed_once_by_two_services_for_two_executors(
    flow: ConnectFlow,
    oauth_server: OAuthServer,
    docs: Resource,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    docs.names(oauth_server.issuer)
    client = {"id": "gateway", "secret": "${env:FAR_SECRET}", "method": "client_secret_basic"}
    await flow.declare(docs.url, tokens="user", clients={oauth_server.issuer: client})
    people = [f"person-{number}" for number in range(40)]
    before = len(oauth_server.seen("refresh_token"))
    refreshes = oauth_server.give(len(people), "gateway", "s")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(build(ProcessContext()).running())  # the second service
        store = await stack.enter_async_context(connection_store(settings))
        for user, refresh in zip(people, refreshes, strict=True):
            await store.put(f"docs {user}", _expiring(user, refresh, docs.url, oauth_server.issuer))
        second = RequestReply(
            "executor", await stack.enter_async_context(bus_of("executor", settings))
        )

        async def both(user: str) -> list[UpstreamTokenReply]:
            query = UpstreamTokenQuery(server="docs", user=user)
            executors = (flow.executor, second)
            replies = (executor.request(query, UpstreamTokenReply, 90.0) for executor in executors)
            return list(await asyncio.gather(*replies))

        result = await asyncio.gather(*map(both, people))
    assert all(first.token == other.token not in ("old", "") for first, other in result)
    assert len(oauth_server.seen("refresh_token")) == before + len(people)


def _expiring(user: str, refresh: str, url: str, issuer: str) -> Connection:
    return Connection(
        "docs", user, url, issuer, "", f"{issuer}/token", "", "gateway", "client_secret_basic",
        "old", time.time() + 20, refresh, (), (), time.time() - 3600,
    )  # fmt: skip


async def test_an_ended_connection_is_revoked_and_the_person_is_asked_again(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await flow.declare(docs.url, tokens="user")
    await flow.connected()
    assert (await flow.request()).token
    (row,) = await flow.server.action("connections")
    assert (row["server"], row["user"], row["renews"]) == ("docs", "ann", True)
    assert not any("far~" in str(value) or "again~" in str(value) for value in row.values())
    await flow.server.action("end_connection", "docs", user="ann")
    reply = await flow.request()
    assert (reply.token, bool(reply.link)) == ("", True)


async def test_only_the_configured_listing_account_lists(
    flow: ConnectFlow, docs: Resource, settings: Settings
) -> None:
    async with connection_store(settings) as store:

        async def connects(user: str, token: str, seconds: float) -> None:
            connection = _expiring(user, "again", docs.url, "https://far.test")
            lasts = {"made": time.time(), "ends": time.time() + seconds}
            await store.put(f"docs {user}", replace(connection, token=token, **lasts))

        await connects("ann", "anns", 7200)
        await flow.declare(docs.url, tokens="user")
        assert (await flow.request("", listing=True)).token == "anns"
        await flow.declare(docs.url, tokens="user", listing="robot")
        assert "The listing account" in (await flow.request("", listing=True)).reason
        await connects("robot", "robots", 3600)
        assert (await flow.request("", listing=True)).token == "robots"
        assert (await flow.request("ann")).token == "anns"


async def test_a_server_without_oauth_has_no_token(flow: ConnectFlow) -> None:
    await flow.server.declare(servers={"docs": {"url": "http://127.0.0.1:9/mcp"}})
    with pytest.raises(InvalidError, match="configured with 'oauth'"):
        await flow.request()
