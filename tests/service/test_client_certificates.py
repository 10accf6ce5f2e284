"""Client certificates of the gateway at authorization servers: the alias, bindings, errors."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.oauth.client_certificates import Certificates, kept_thumbprint
from harness.oauth.protected_processes import CertificateBoundOAuthServer, Resource
from harness.services.oauth_connections import ConnectFlow, executor_connection
from toolbus_common.config import OAuthClient
from toolbus_common.contracts import UpstreamTokenReply
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings

METHODS = "token_endpoint_auth_methods_supported"
Pair = tuple[str, str]


@pytest.fixture(scope="module")
def oauth_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[CertificateBoundOAuthServer]:
    directory = tmp_path_factory.mktemp("oauth")
    with CertificateBoundOAuthServer(directory, Certificates(directory)).running() as server:
        yield server


@pytest.fixture
def oauth_server(oauth_process: CertificateBoundOAuthServer) -> CertificateBoundOAuthServer:
    """Issue tokens to clients that present the first certificate."""
    oauth_process.as_ever().announce_alias()
    oauth_process.say(certificate=kept_thumbprint(oauth_process.certificates.client[0]))
    return oauth_process


@pytest.fixture
def docs(docs: Resource, oauth_server: CertificateBoundOAuthServer) -> Resource:
    docs.names(oauth_server.issuer)
    return docs


@pytest.fixture
async def flow(
    settings: Settings,
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
    oauth_server: CertificateBoundOAuthServer,
) -> AsyncIterator[ConnectFlow]:
    ca = oauth_server.certificates.ca
    async with executor_connection(settings, operator, monkeypatch, EGRESS_CA=ca) as parts:
        yield ConnectFlow(*parts)


def references(pair: Pair) -> dict[str, str]:
    """Return the configuration of a certificate and its key."""
    certificate, key = pair
    return {"certificate": f"${{file:{certificate}}}", "key": f"${{file:{key}}}"}


async def reply_for(
    flow: ConnectFlow, oauth_server: CertificateBoundOAuthServer, docs: Resource, **client: Any
) -> UpstreamTokenReply:
    """Return the reply for a client of this configuration."""
    clients = {oauth_server.issuer: {"id": "toolbus", **client}}
    await flow.declare(docs.url, grant="client_credentials", clients=clients)
    return await flow.request("")


async def test_a_certificate_authenticates_the_client_at_the_alias_without_other_credentials(
    flow: ConnectFlow, oauth_server: CertificateBoundOAuthServer, docs: Resource
) -> None:
    before = len(oauth_server.seen("client_credentials"))
    found = await reply_for(
        flow, oauth_server, docs, **references(oauth_server.certificates.client)
    )
    assert found.token.startswith("far~"), found.reason
    (request,) = oauth_server.seen("client_credentials")[before:]
    assert request["certificate"] == kept_thumbprint(oauth_server.certificates.client[0])
    assert request["client_id"] == "toolbus"
    assert request["authorization"] == ""
    assert not {"client_secret", "client_assertion"} & request.keys()


@pytest.mark.parametrize("method", ["tls_client_auth", "self_signed_tls_client_auth"])
async def test_certificate_authentication_is_used_where_configured_or_offered(
    flow: ConnectFlow, oauth_server: CertificateBoundOAuthServer, docs: Resource, method: str
) -> None:
    pair = references(oauth_server.certificates.client)
    assert (await reply_for(flow, oauth_server, docs, method=method, **pair)).token
    oauth_server.announce_alias(**{METHODS: [method, "private_key_jwt"]})
    docs.names(oauth_server.issuer, "/other")
    clients = {oauth_server.issuer: {"id": "toolbus", **pair}}
    other = f"{docs.origin}/other"
    await flow.declare(other, grant="client_credentials", clients=clients)
    assert (await flow.request("")).token


async def test_with_a_secret_the_certificate_only_binds_the_tokens(
    flow: ConnectFlow,
    oauth_server: CertificateBoundOAuthServer,
    docs: Resource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s-of-these-tests")
    client = {"secret": "${env:FAR_SECRET}", "method": "client_secret_post"}
    found = await reply_for(
        flow, oauth_server, docs, **client, **references(oauth_server.certificates.client)
    )
    assert found.token, found.reason
    request = oauth_server.seen("client_credentials")[-1]
    assert request["client_secret"] == "s-of-these-tests"
    assert request["certificate"] == kept_thumbprint(oauth_server.certificates.client[0])


async def test_a_client_without_a_certificate_does_not_use_the_alias(
    flow: ConnectFlow,
    oauth_server: CertificateBoundOAuthServer,
    docs: Resource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    found = await reply_for(flow, oauth_server, docs, secret="${env:FAR_SECRET}")
    assert "401 invalid_client" in found.reason
    assert "certificate" not in found.reason
    assert oauth_server.seen("client_credentials")[-1]["certificate"] == ""


async def test_an_unregistered_certificate_gets_no_token_and_the_reason_names_the_fix(
    flow: ConnectFlow, oauth_server: CertificateBoundOAuthServer, docs: Resource
) -> None:
    found = await reply_for(
        flow, oauth_server, docs, **references(oauth_server.certificates.second)
    )
    assert found.token == ""
    assert "check that the client certificate under oauth.clients is the registered" in (
        found.reason
    )


async def test_a_certificate_of_an_untrusted_authority_ends_the_exchange(
    flow: ConnectFlow, oauth_server: CertificateBoundOAuthServer, docs: Resource
) -> None:
    before = len(oauth_server.seen("client_credentials"))
    found = await reply_for(
        flow, oauth_server, docs, **references(oauth_server.certificates.strange)
    )
    assert found.token == ""
    assert "of an authority that the server trusts" in found.reason
    assert len(oauth_server.seen("client_credentials")) == before


async def test_a_server_that_requires_a_certificate_is_not_reached_without_one(
    flow: ConnectFlow,
    oauth_server: CertificateBoundOAuthServer,
    docs: Resource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    oauth_server.say(document={"token_endpoint": f"{oauth_server.alias}/token"})
    found = await reply_for(flow, oauth_server, docs, secret="${env:FAR_SECRET}")
    assert found.token == ""
    assert "configure one under oauth.clients" in found.reason


@pytest.mark.parametrize(
    ("alias", "why"),
    [
        ("https://169.254.169.254/token", "TOOLBUS_EGRESS_ALLOW"),
        ("http://127.0.0.1:9/token", "needs an https URL"),
        ("file:///etc/passwd", "neither http nor https"),
        (7, ""),
    ],
    ids=["inside", "in the open", "no server", "no text"],
)
async def test_an_alias_is_checked_like_any_other_endpoint(
    flow: ConnectFlow,
    oauth_server: CertificateBoundOAuthServer,
    docs: Resource,
    alias: Any,
    why: str,
) -> None:
    oauth_server.say(document={"mtls_endpoint_aliases": {"token_endpoint": alias}}, certificate="")
    found = await reply_for(
        flow, oauth_server, docs, **references(oauth_server.certificates.client)
    )
    assert why in found.reason
    assert bool(found.token) is (not why), "an invalid alias is ignored, and the endpoint is used"


async def test_the_private_key_is_in_no_log_reply_or_row(
    flow: ConnectFlow,
    oauth_server: CertificateBoundOAuthServer,
    docs: Resource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    certificate, key = oauth_server.certificates.client
    other = oauth_server.certificates.second[1]
    mixed = await reply_for(flow, oauth_server, docs, **references((certificate, other)))
    assert "cannot be used together" in mixed.reason
    assert (await reply_for(flow, oauth_server, docs, **references((certificate, key)))).token
    rows = await flow.server.action("connections")
    assert rows
    texts = (caplog.text, str(rows), mixed.reason)
    assert not any(line in text for line in (*_inner(key), *_inner(other)) for text in texts)


def _inner(file: str) -> list[str]:
    """Return the secret lines of a key."""
    return [line for line in Path(file).read_text().splitlines() if "-----" not in line]


@pytest.mark.parametrize(
    "client",
    [
        {"method": "tls_client_auth"},
        {"certificate": "${file:/c.pem}"},
        {"certificate": "-----BEGIN CERTIFICATE-----", "key": "${file:/k.pem}"},
        {
            "certificate": "${file:/c.pem}",
            "key": "${file:/k.pem}",
            "secret": "${env:S}",
            "method": "tls_client_auth",
        },
    ],
    ids=["none", "without a key", "in the open", "with a secret"],
)
def test_an_inconsistent_client_configuration_is_rejected(client: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"certificate|secret|reference"):
        OAuthClient(id="x", **client)
