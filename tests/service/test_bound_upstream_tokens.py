"""Upstream tokens bound to a key of the gateway, where this is offered or configured."""

import base64
from hashlib import sha256

import pytest

from harness.oauth.dpop_proofs import read
from harness.oauth.protected_processes import OAuthServer, Resource
from harness.services.oauth_connections import ConnectFlow
from toolbus_common.crypto.dpop.client import ProofKey
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONNECTIONS
from toolbus_oauth.oauth_client.identity import ClientIdentity
from toolbus_oauth.upstreams.client_identity import ClientIdentities
from toolbus_oauth.upstreams.discovery import DiscoveryError

OFFERS = {"dpop_signing_alg_values_supported": ["RS256", "ES256"]}


async def test_each_connection_has_its_own_proof_key_for_all_its_tokens(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, operator: Bus
) -> None:
    docs.names(oauth_server.issuer)
    oauth_server.say(document=OFFERS, nonce="n-1")
    await flow.declare(docs.url, tokens="user")
    assert "Connected" in (await flow.connected()).text
    first = await flow.request()
    assert first.token.startswith("far~")
    assert len(base64.urlsafe_b64decode(f"{first.key}=")) == 32
    proofs = [form["dpop"] for form in oauth_server.seen("authorization_code")]
    items = [read(proof)[0].get("nonce") for proof in proofs]
    assert items == [None, "n-1"], "repeated with the requested nonce"
    oauth_server.say(nonce="n-2")
    refused = sha256(first.token.encode()).hexdigest()
    second = await flow.request(challenge='DPoP error="invalid_token"', rejected=refused)
    assert second.token != first.token
    assert second.key == first.key
    items = [read(form["dpop"])[0].get("nonce") for form in oauth_server.seen("refresh_token")]
    assert items == ["n-1", "n-2"]
    jkt = read(ProofKey.of(first.key).proof("GET", docs.url))[1]
    assert {read(form["dpop"])[1] for form in oauth_server.seen("refresh_token")} == {jkt}
    stored = [each.value for each in await (await operator.bucket(CONNECTIONS)).present()]
    assert stored
    assert not any(first.key.encode() in value for value in stored if value)
    (row,) = await flow.server.action("connections")
    assert row["bound"] is True
    assert first.key not in str(row)


async def test_a_proof_key_is_used_only_where_offered_or_configured(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    docs.names(oauth_server.issuer)
    client = {"id": "gateway", "secret": "${env:FAR_SECRET}"}
    known = {"grant": "client_credentials", "clients": {oauth_server.issuer: client}}
    await flow.declare(docs.url, **known)
    plain = await flow.request("")
    assert (bool(plain.token), plain.key) == (True, "")
    await flow.declare(docs.url, dpop=True, **known)
    bound = await flow.request("")
    assert bound.key
    assert bound.token != plain.token, "the earlier token is not used any more"
    assert [bool(form["dpop"]) for form in oauth_server.seen("client_credentials")] == [False, True]
    oauth_server.say(document=OFFERS)
    await flow.declare(f"{docs.origin}/other", dpop=False, **known)
    docs.names(oauth_server.issuer, "/other")
    assert (await flow.request("")).key == ""


async def test_a_connection_is_retained_while_its_client_secret_is_unavailable(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.names(oauth_server.issuer)
    await flow.declare(docs.url, tokens="user")
    assert "Connected" in (await flow.connected()).text
    first = await flow.request()
    refused = sha256(first.token.encode()).hexdigest()

    async def away(*_: object) -> ClientIdentity:
        raise DiscoveryError("its client's secret: the store is away")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(ClientIdentities, "again", away)
        reply = await flow.request(rejected=refused)
        assert (reply.token, "store is away" in reply.reason) == ("", True)
    again = await flow.request(rejected=refused)
    assert again.token not in ("", first.token), "no new consent was needed"


async def test_an_unbound_token_is_accepted_unless_a_bound_one_is_configured(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    oauth_server.say(document=OFFERS, unbound=True)
    docs.names(oauth_server.issuer)
    client = {"id": "gateway", "secret": "${env:FAR_SECRET}"}
    known = {"grant": "client_credentials", "clients": {oauth_server.issuer: client}}
    await flow.declare(docs.url, **known)
    reply = await flow.request("")
    assert (bool(reply.token), reply.key) == (True, "")
    await flow.declare(docs.url, dpop=True, **known)
    reply = await flow.request("")
    assert reply.token == ""
    assert "not bound to a key" in reply.reason
