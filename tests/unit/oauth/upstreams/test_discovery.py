"""Discovery of the authorization server of an upstream server."""

from typing import Any

import pytest

from harness.network.json_server import Response, answering
from toolbus_common.config import Server
from toolbus_common.egress import Egress
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_oauth.oauth_client.identity import ClientIdentity
from toolbus_oauth.oauth_client.scope_values import scopes_in
from toolbus_oauth.upstreams.connection_repository import link_for
from toolbus_oauth.upstreams.discovery import (
    AuthorizationServer,
    Challenge,
    Discovery,
    DiscoveryError,
    challenge_of,
    is_resource_of,
)


@pytest.mark.parametrize(
    ("header", "metadata", "scopes", "error"),
    [
        ('Bearer resource_metadata="https://a.test/x", scope="b c"', "https://a.test/x", "b c", ""),
        ('Basic realm="x", bearer scope=one,error="invalid_token"', "", "one", "invalid_token"),
        (r'Bearer realm="a \" b", scope="d"', "", "d", ""),
        ('Digest scope="Bearer x"', "", "", ""),
        ("Bearer", "", "", ""),
    ],
)
def test_a_challenge_is_parsed(header: str, metadata: str, scopes: str, error: str) -> None:
    found = challenge_of(header)
    assert (found.metadata, " ".join(found.scopes), found.error) == (metadata, scopes, error)


def test_a_client_with_a_certificate_uses_the_mtls_aliases() -> None:
    document: dict[str, Any] = {
        "token_endpoint": "https://far.test/token",
        "revocation_endpoint": "https://far.test/revoke",
        "mtls_endpoint_aliases": {"token_endpoint": "https://mtls.far.test/token"},
    }
    found, server = (
        AuthorizationServer("https://far.test", "", (), document),
        Server(url="https://docs.test"),
    )
    identity = ClientIdentity("x", "tls_client_auth", shown="a certificate")
    link = link_for("docs", server, "", found, identity, ())
    assert link.endpoint == "https://mtls.far.test/token"
    assert link.revocation == "https://far.test/revoke"
    link = link_for("docs", server, "", found, ClientIdentity("x", "none"), ())
    assert link.endpoint == "https://far.test/token"
    assert "a certificate" not in repr(identity)


@pytest.mark.parametrize(
    ("resource", "fits"),
    [
        ("https://docs.test/mcp", True),
        ("https://docs.test/", True),
        ("https://docs.test", True),
        ("https://DOCS.test:443/mcp/", True),
        ("https://docs.test/mc", False),
        ("https://docs.test/mcp/other", False),
        ("https://docs.test.evil.test/mcp", False),
        ("http://docs.test/mcp", False),
        ("https://docs.test/mcp#x", False),
        ("not a url", False),
    ],
)
def test_metadata_must_be_of_the_server_or_a_parent_path(resource: str, *, fits: bool) -> None:
    assert is_resource_of(resource, "https://docs.test/mcp") is fits


def test_only_valid_scopes_are_requested() -> None:
    assert scopes_in(["a", "a", 'b"', "c d", 7, "e" * 300, "f"]) == ("a", "f")
    assert len(scopes_in([f"s{number}" for number in range(1000)])) == 64


@pytest.mark.parametrize("issuer", ["http://[", "https://[::1", "nowhere", ""])
async def test_an_issuer_that_is_no_url_is_an_error_that_says_so(issuer: str) -> None:
    discovery = Discovery(HttpClient(CheckedResolver(Egress())), lambda _: True)
    with answering(lambda _: Response(body=metadata)) as port:
        url = f"http://127.0.0.1:{port}/mcp"
        metadata = {"resource": url, "authorization_servers": [issuer]}
        with pytest.raises(DiscoveryError, match="its authorization server"):
            await discovery.found(Server(url=url), Challenge())
