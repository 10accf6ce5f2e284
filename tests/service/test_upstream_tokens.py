"""The oauth service as a client of others, on a real bus: what it gives, and what it refuses."""

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
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings
from toolbus_oauth.main import build
from toolbus_oauth.upstreams.connections.records import Connection

TAKES_DOCUMENTS = "client_id_metadata_document_supported"
NAMES_ITSELF = "authorization_response_iss_parameter_supported"


@pytest.fixture(scope="module")
def farther(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    with OAuthServer(tmp_path_factory.mktemp("oauth")).running() as made:
        yield made


@pytest.fixture
def other(farther: OAuthServer) -> OAuthServer:
    return farther.as_ever()


async def test_a_person_consents_and_the_token_is_for_that_server_and_person_alone(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    sent = await asking.sent()
    assert sent.parameters["resource"] == docs.url
    assert sent.parameters["code_challenge_method"] == "S256"
    done = await asking.walker.get(redirected_back(sent))
    assert "Connected" in done.text
    assert (await asking.request()).token.startswith("far~")
    assert (await asking.request("bob")).token == ""
    exchanged = far.seen("authorization_code")[-1]
    assert exchanged["resource"] == docs.url
    assert exchanged["redirect_uri"] == sent.parameters["redirect_uri"]


async def test_a_token_is_not_given_for_an_address_it_was_not_got_for(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    await asking.connected()
    assert (await asking.request()).token
    await asking.declare(f"{docs.origin}/elsewhere", tokens="user")
    assert (await asking.request()).token == ""


async def test_a_link_is_good_for_its_person_in_one_browser_and_its_state_once(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    sent = await asking.sent()
    back = redirected_back(sent)
    stranger = ServiceBrowser(asking.server)
    assert (await stranger.get(back)).status == 403
    again = redirected_back(await asking.sent())
    assert (await asking.walker.get(again)).status == 200
    assert (await asking.walker.get(again)).status == 400
    assert (await asking.walker.get("/oauth/connected", state="made-up", code="c")).status == 400


@pytest.mark.parametrize("named", ["https://evil.test", None])
async def test_an_answer_of_another_issuer_or_of_none_is_not_used(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, named: str | None
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    far.say(iss=named)
    before = len(far.seen("authorization_code"))
    page = await asking.connected()
    assert page.status == 403
    assert len(far.seen("authorization_code")) == before
    assert (await asking.request()).token == ""


async def test_an_answer_of_one_issuer_is_not_taken_to_another_where_neither_names_itself(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, other: OAuthServer
) -> None:
    for each in (far, other):
        each.say(iss=None, document={NAMES_ITSELF: False})
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    honest = (await asking.sent()).parameters  # who Toolbus is there, as the other can learn
    docs.names(other.issuer, "/evil")
    await asking.declare(f"{docs.origin}/evil", tokens="user")
    own = {name: honest[name] for name in ("client_id", "redirect_uri", "resource")}
    sent = await asking.sent()
    back = redirect_of(f"{far.issuer}/authorize?{urlencode(sent.parameters | own)}")
    assert f"state={sent.parameters['state']}" in back
    assert "code=" in back
    before = len(other.seen("authorization_code"))
    assert (await asking.walker.get(back)).status == 403
    assert len(other.seen("authorization_code")) == before
    assert (await asking.connected()).status == 200


async def test_our_document_is_shown_only_to_issuers_that_name_themselves_in_answers(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    shared = f"{BASE}/oauth/connected"

    async def sent(place: str, *, names: bool, **oauth: Any) -> Page:
        far.say(document={TAKES_DOCUMENTS: True, NAMES_ITSELF: names})
        docs.names(far.issuer, place)
        await asking.declare(f"{docs.origin}{place}", tokens="user", **oauth)
        return await asking.sent()

    there = await sent("/names", names=True)
    assert (there.parameters["client_id"], there.parameters["redirect_uri"]) == (DOCUMENT, shared)
    assert (
        await asking.walker.get(shared, state=there.parameters["state"], code="c")
    ).status == 403
    there = await sent("/names-not", names=False)
    assert there.parameters["client_id"] != DOCUMENT
    assert there.parameters["redirect_uri"].startswith(f"{shared}/")
    there = await sent("/claims", names=False, clients={far.issuer: {"id": DOCUMENT}})
    assert there.parameters["redirect_uri"].startswith(f"{shared}/")


async def test_where_only_our_document_would_do_and_nobody_names_himself_one_is_told_what_to_do(
    asking: ConnectFlow, other: OAuthServer, docs: Resource
) -> None:
    other.say(document={TAKES_DOCUMENTS: True, NAMES_ITSELF: False, "registration_endpoint": None})
    docs.names(other.issuer)
    await asking.declare(docs.url, tokens="user")
    reply = await asking.request()
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
async def test_metadata_that_does_not_hold_together_leads_nobody_anywhere(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, resource: str, document: Any, why: str
) -> None:
    docs.names(far.issuer, **({"resource": resource} if resource else {}))
    far.say(document=document)
    await asking.declare(docs.url, tokens="user")
    reply = await asking.request()
    assert reply.link == ""
    assert why in reply.reason


async def test_metadata_lead_to_no_address_that_is_not_allowed(
    settings: Settings,
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
    docs: Resource,
) -> None:
    monkeypatch.setenv("TOOLBUS_EGRESS_ALLOW", "")
    with Resource().serving() as inside:
        async with executor_connection(settings, operator, monkeypatch) as parts:
            asking = ConnectFlow(*parts)
            await asking.declare(docs.url, tokens="user")  # which names the server itself
            for metadata in (f"{inside.origin}/x", "http://169.254.169.254/x", "file:///etc"):
                challenge = f'Bearer resource_metadata="{metadata}"'
                assert not (await asking.request(challenge=challenge)).link
            docs.names(inside.origin)
            reply = await asking.request()
            assert "TOOLBUS_EGRESS_ALLOW" in reply.reason
        assert inside.hits == []
        assert WELL_KNOWN in docs.hits


async def test_a_server_that_moved_to_another_issuer_is_shown_nothing_of_the_first(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, other: OAuthServer
) -> None:
    docs.names(far.issuer)
    clients = {far.issuer: {"id": "declared-there"}}
    await asking.declare(docs.url, tokens="user", clients=clients)
    assert (await asking.sent()).parameters["client_id"] == "declared-there"
    docs.names(other.issuer)
    await asyncio.sleep(1.1)  # what was found is believed for a second
    reply = await asking.request(challenge=f'Bearer resource_metadata="{docs.origin}{WELL_KNOWN}"')
    page = await asking.walker.get(reply.link)
    sent = await asking.walker.post("/oauth/connect", ticket=page.ticket, answer="allow")
    assert sent.location.startswith(other.issuer)
    assert sent.parameters["client_id"] != "declared-there"


async def test_more_scopes_are_asked_for_beside_those_before_and_only_once(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer, scopes_supported=["read"])
    await asking.declare(docs.url, tokens="user")
    await asking.connected()
    token = (await asking.request()).token
    challenge = 'Bearer error="insufficient_scope", scope="write"'
    refused = sha256(token.encode()).hexdigest()
    reply = await asking.request(challenge=challenge, refused=refused)
    page = await asking.walker.get(reply.link)
    sent = await asking.walker.post("/oauth/connect", ticket=page.ticket, answer="allow")
    assert sent.parameters["scope"] == "read write"
    await asking.walker.get(redirected_back(sent))
    refused = sha256((await asking.request()).token.encode()).hexdigest()
    again = await asking.request(challenge=challenge, refused=refused)
    assert (again.link, again.token) == ("", "")
    assert "already requested" in again.reason


async def test_toolbus_calls_in_its_own_name_with_credentials_it_was_given(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.names(far.issuer, scopes_supported=["read"])
    monkeypatch.setenv("FAR_SECRET", "a secret of ours")
    client = {"id": "gateway", "secret": "${env:FAR_SECRET}"}
    await asking.declare(docs.url, grant="client_credentials", clients={far.issuer: client})
    reply = await asyncio.gather(*(asking.request("") for _ in range(10)))
    assert len({each.token for each in reply}) == 1
    assert reply[0].token.startswith("far~")
    request = far.seen("client_credentials")
    assert len(request) == 1
    assert (request[0]["scope"], request[0]["resource"]) == ("read", docs.url)


async def test_tokens_that_end_together_are_each_renewed_once_by_two_services_for_two_executors(
    asking: ConnectFlow,
    far: OAuthServer,
    docs: Resource,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    docs.names(far.issuer)
    client = {"id": "gateway", "secret": "${env:FAR_SECRET}", "method": "client_secret_basic"}
    await asking.declare(docs.url, tokens="user", clients={far.issuer: client})
    people = [f"person-{number}" for number in range(40)]
    before = len(far.seen("refresh_token"))
    refreshes = far.give(len(people), "gateway", "s")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(build(LocalTransport()).running())  # the second service
        store = await stack.enter_async_context(connection_store(settings))
        for user, refresh in zip(people, refreshes, strict=True):
            await store.put(f"docs {user}", _ending(user, refresh, docs.url, far.issuer))
        second = RequestReply(
            "executor", await stack.enter_async_context(bus_of("executor", settings))
        )

        async def both(user: str) -> list[UpstreamTokenReply]:
            query = UpstreamTokenQuery(server="docs", user=user)
            lanes = (asking.executor, second)
            asks = (lane.request(query, UpstreamTokenReply, 90.0) for lane in lanes)
            return list(await asyncio.gather(*asks))

        result = await asyncio.gather(*map(both, people))
    assert all(first.token == other.token not in ("old", "") for first, other in result)
    assert len(far.seen("refresh_token")) == before + len(people)


def _ending(user: str, refresh: str, url: str, issuer: str) -> Connection:
    return Connection(
        "docs", user, url, issuer, "", f"{issuer}/token", "", "gateway", "client_secret_basic",
        "old", time.time() + 20, refresh, (), (), time.time() - 3600,
    )  # fmt: skip


async def test_a_connection_that_ends_is_given_back_and_its_person_is_asked_anew(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    await asking.connected()
    assert (await asking.request()).token
    (row,) = await asking.server.action("connections")
    assert (row["server"], row["user"], row["renews"]) == ("docs", "ann", True)
    assert not any("far~" in str(value) or "again~" in str(value) for value in row.values())
    await asking.server.action("end_connection", "docs", user="ann")
    reply = await asking.request()
    assert (reply.token, bool(reply.link)) == ("", True)


async def test_only_the_account_that_is_named_lists_if_one_is(
    asking: ConnectFlow, docs: Resource, settings: Settings
) -> None:
    async with connection_store(settings) as store:

        async def connects(user: str, token: str, seconds: float) -> None:
            made = _ending(user, "again", docs.url, "https://far.test")
            lasts = {"made": time.time(), "ends": time.time() + seconds}
            await store.put(f"docs {user}", replace(made, token=token, **lasts))

        await connects("ann", "anns", 7200)
        await asking.declare(docs.url, tokens="user")
        assert (await asking.request("", listing=True)).token == "anns"
        await asking.declare(docs.url, tokens="user", listing="robot")
        assert "The listing account" in (await asking.request("", listing=True)).reason
        await connects("robot", "robots", 3600)
        assert (await asking.request("", listing=True)).token == "robots"
        assert (await asking.request("ann")).token == "anns"


async def test_what_wants_no_oauth_has_no_token(asking: ConnectFlow) -> None:
    await asking.server.declare(servers={"docs": {"url": "http://127.0.0.1:9/mcp"}})
    with pytest.raises(InvalidError, match="configured with 'oauth'"):
        await asking.request()
