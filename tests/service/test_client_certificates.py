"""Toolbus as a client that shows a certificate: to whom, with what, and what it is told else."""

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
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CertificateBoundOAuthServer]:
    directory = tmp_path_factory.mktemp("oauth")
    with CertificateBoundOAuthServer(directory, Certificates(directory)).running() as made:
        yield made


@pytest.fixture
def far(away: CertificateBoundOAuthServer) -> CertificateBoundOAuthServer:
    """It gives tokens to who shows our first certificate."""
    away.as_ever().announce_alias()
    away.say(certificate=kept_thumbprint(away.certificates.client[0]))
    return away


@pytest.fixture
def docs(docs: Resource, far: CertificateBoundOAuthServer) -> Resource:
    docs.names(far.issuer)
    return docs


@pytest.fixture
async def asking(
    settings: Settings,
    operator: Bus,
    monkeypatch: pytest.MonkeyPatch,
    far: CertificateBoundOAuthServer,
) -> AsyncIterator[ConnectFlow]:
    ca = far.certificates.ca
    async with executor_connection(settings, operator, monkeypatch, EGRESS_CA=ca) as parts:
        yield ConnectFlow(*parts)


def shown(pair: Pair) -> dict[str, str]:
    """How a certificate and its key are declared."""
    certificate, key = pair
    return {"certificate": f"${{file:{certificate}}}", "key": f"${{file:{key}}}"}


async def told(
    asking: ConnectFlow, far: CertificateBoundOAuthServer, docs: Resource, **client: Any
) -> UpstreamTokenReply:
    """What a machine that is declared so is told."""
    clients = {far.issuer: {"id": "toolbus", **client}}
    await asking.declare(docs.url, grant="client_credentials", clients=clients)
    return await asking.request("")


async def test_a_certificate_proves_the_client_at_the_alias_and_nothing_else_is_shown(
    asking: ConnectFlow, far: CertificateBoundOAuthServer, docs: Resource
) -> None:
    before = len(far.seen("client_credentials"))
    found = await told(asking, far, docs, **shown(far.certificates.client))
    assert found.token.startswith("far~"), found.reason
    (request,) = far.seen("client_credentials")[before:]
    assert request["certificate"] == kept_thumbprint(far.certificates.client[0])
    assert request["client_id"] == "toolbus"
    assert request["authorization"] == ""
    assert not {"client_secret", "client_assertion"} & request.keys()


@pytest.mark.parametrize("method", ["tls_client_auth", "self_signed_tls_client_auth"])
async def test_it_proves_itself_so_where_that_is_declared_or_offered(
    asking: ConnectFlow, far: CertificateBoundOAuthServer, docs: Resource, method: str
) -> None:
    pair = shown(far.certificates.client)
    assert (await told(asking, far, docs, method=method, **pair)).token
    far.announce_alias(**{METHODS: [method, "private_key_jwt"]})
    docs.names(far.issuer, "/other")
    clients = {far.issuer: {"id": "toolbus", **pair}}
    other = f"{docs.origin}/other"
    await asking.declare(other, grant="client_credentials", clients=clients)
    assert (await asking.request("")).token


async def test_beside_a_secret_the_certificate_is_what_tokens_are_bound_to(
    asking: ConnectFlow,
    far: CertificateBoundOAuthServer,
    docs: Resource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s-of-these-tests")
    client = {"secret": "${env:FAR_SECRET}", "method": "client_secret_post"}
    found = await told(asking, far, docs, **client, **shown(far.certificates.client))
    assert found.token, found.reason
    request = far.seen("client_credentials")[-1]
    assert request["client_secret"] == "s-of-these-tests"
    assert request["certificate"] == kept_thumbprint(far.certificates.client[0])


async def test_who_shows_none_is_not_sent_to_the_alias(
    asking: ConnectFlow,
    far: CertificateBoundOAuthServer,
    docs: Resource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    found = await told(asking, far, docs, secret="${env:FAR_SECRET}")
    assert "401 invalid_client" in found.reason
    assert "certificate" not in found.reason
    assert far.seen("client_credentials")[-1]["certificate"] == ""


async def test_another_certificate_gets_no_token_and_the_reason_says_what_to_do(
    asking: ConnectFlow, far: CertificateBoundOAuthServer, docs: Resource
) -> None:
    found = await told(asking, far, docs, **shown(far.certificates.second))
    assert found.token == ""
    assert "check that the client certificate under oauth.clients is the registered" in (
        found.reason
    )


async def test_a_certificate_of_an_authority_it_does_not_trust_ends_the_exchange(
    asking: ConnectFlow, far: CertificateBoundOAuthServer, docs: Resource
) -> None:
    before = len(far.seen("client_credentials"))
    found = await told(asking, far, docs, **shown(far.certificates.strange))
    assert found.token == ""
    assert "of an authority that the server trusts" in found.reason
    assert len(far.seen("client_credentials")) == before


async def test_a_server_that_wants_a_certificate_is_not_reached_without_one(
    asking: ConnectFlow,
    far: CertificateBoundOAuthServer,
    docs: Resource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAR_SECRET", "s")
    far.say(document={"token_endpoint": f"{far.alias}/token"})
    found = await told(asking, far, docs, secret="${env:FAR_SECRET}")
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
async def test_an_alias_leads_nowhere_that_other_endpoints_may_not(
    asking: ConnectFlow, far: CertificateBoundOAuthServer, docs: Resource, alias: Any, why: str
) -> None:
    far.say(document={"mtls_endpoint_aliases": {"token_endpoint": alias}}, certificate="")
    found = await told(asking, far, docs, **shown(far.certificates.client))
    assert why in found.reason
    assert bool(found.token) is (not why), "what is no URL is none, and the endpoint itself is left"


async def test_the_key_is_nowhere_to_be_read(
    asking: ConnectFlow,
    far: CertificateBoundOAuthServer,
    docs: Resource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    certificate, key = far.certificates.client
    other = far.certificates.second[1]
    mixed = await told(asking, far, docs, **shown((certificate, other)))
    assert "cannot be used together" in mixed.reason
    assert (await told(asking, far, docs, **shown((certificate, key)))).token
    rows = await asking.server.action("connections")
    assert rows
    seen = (caplog.text, str(rows), mixed.reason)
    assert not any(line in text for line in (*_inner(key), *_inner(other)) for text in seen)


def _inner(file: str) -> list[str]:
    """The lines of a key that tell it."""
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
def test_what_does_not_fit_together_is_not_declared(client: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"certificate|secret|reference"):
        OAuthClient(id="x", **client)
