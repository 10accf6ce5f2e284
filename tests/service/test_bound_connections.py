"""Tokens for servers, bound to a key of Toolbus' own where that is offered, or declared."""

import base64
from hashlib import sha256

import pytest

from harness.oauth.dpop_proofs import read
from harness.oauth.protected_processes import OAuthServer, Resource
from harness.services.oauth_connections import ConnectFlow
from toolbus_common.crypto.dpop.client import ProofKey
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONNECTIONS
from toolbus_oauth.upstreams.client_identity import ClientIdentities, ClientIdentity
from toolbus_oauth.upstreams.discovery import DiscoveryError

OFFERS = {"dpop_signing_alg_values_supported": ["RS256", "ES256"]}


async def test_where_it_is_offered_each_connection_has_a_key_of_its_own_through_all_its_tokens(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, operator: Bus
) -> None:
    docs.names(far.issuer)
    far.say(document=OFFERS, nonce="n-1")
    await asking.declare(docs.url, tokens="user")
    assert "Connected" in (await asking.connected()).text
    first = await asking.request()
    assert first.token.startswith("far~")
    assert len(base64.urlsafe_b64decode(f"{first.key}=")) == 32
    proofs = [form["dpop"] for form in far.seen("authorization_code")]
    items = [read(proof)[0].get("nonce") for proof in proofs]
    assert items == [None, "n-1"], "once more, with what was asked for"
    far.say(nonce="n-2")
    refused = sha256(first.token.encode()).hexdigest()
    second = await asking.request(challenge='DPoP error="invalid_token"', rejected=refused)
    assert second.token != first.token
    assert second.key == first.key
    items = [read(form["dpop"])[0].get("nonce") for form in far.seen("refresh_token")]
    assert items == ["n-1", "n-2"]
    jkt = read(ProofKey.of(first.key).proof("GET", docs.url))[1]
    assert {read(form["dpop"])[1] for form in far.seen("refresh_token")} == {jkt}
    kept = [each.value for each in await (await operator.bucket(CONNECTIONS)).present()]
    assert kept
    assert not any(first.key.encode() in value for value in kept if value)
    (row,) = await asking.server.action("connections")
    assert row["bound"] is True
    assert first.key not in str(row)


async def test_where_nothing_is_offered_no_key_is_shown_and_with_a_word_it_is(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    docs.names(far.issuer)
    client = {"id": "gateway", "secret": "${env:FAR_SECRET}"}
    known = {"grant": "client_credentials", "clients": {far.issuer: client}}
    await asking.declare(docs.url, **known)
    plain = await asking.request("")
    assert (bool(plain.token), plain.key) == (True, "")
    await asking.declare(docs.url, dpop=True, **known)
    bound = await asking.request("")
    assert bound.key
    assert bound.token != plain.token, "the one before is not used any more"
    assert [bool(form["dpop"]) for form in far.seen("client_credentials")] == [False, True]
    far.say(document=OFFERS)
    await asking.declare(f"{docs.origin}/other", dpop=False, **known)
    docs.names(far.issuer, "/other")
    assert (await asking.request("")).key == ""


async def test_a_connection_is_kept_while_what_proves_us_there_cannot_be_read(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    assert "Connected" in (await asking.connected()).text
    first = await asking.request()
    refused = sha256(first.token.encode()).hexdigest()

    async def away(*_: object) -> ClientIdentity:
        raise DiscoveryError("its client's secret: the store is away")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(ClientIdentities, "again", away)
        reply = await asking.request(rejected=refused)
        assert (reply.token, "store is away" in reply.reason) == ("", True)
    again = await asking.request(rejected=refused)
    assert again.token not in ("", first.token), "nobody had to consent anew"


async def test_a_server_that_passes_the_proof_over_gives_a_token_unless_a_bound_one_is_declared(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    far.say(document=OFFERS, unbound=True)
    docs.names(far.issuer)
    client = {"id": "gateway", "secret": "${env:FAR_SECRET}"}
    known = {"grant": "client_credentials", "clients": {far.issuer: client}}
    await asking.declare(docs.url, **known)
    reply = await asking.request("")
    assert (bool(reply.token), reply.key) == (True, "")
    await asking.declare(docs.url, dpop=True, **known)
    reply = await asking.request("")
    assert reply.token == ""
    assert "not bound to a key" in reply.reason
