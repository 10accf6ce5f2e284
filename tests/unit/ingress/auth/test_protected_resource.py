"""Access tokens at the edge: verification, metadata documents, challenges."""

import json
from typing import Any

import pytest

from harness.builders.access_tokens import BASE, bearer
from harness.builders.configurations import configuration_change, configured
from harness.clients.bus_operator import key
from toolbus_common.access.config_snapshot import ConfigView, key_digest_of
from toolbus_common.contracts import Bearer
from toolbus_common.errors import UnauthorizedError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_ingress.auth.dpop import DPoPVerifier
from toolbus_ingress.auth.protected_resource import ProtectedResource

TOKEN = "eyJh.eyJp.c2ln"


class OAuthStub(RequestReply):
    """The OAuth service without a bus; counts the requests."""

    def __init__(self, reply: Bearer | Exception) -> None:
        super().__init__("ingress", Bus("ingress", "nats://127.0.0.1:9"))
        self.reply, self.requests = reply, 0

    async def request(self, _query: Any, answer: Any, seconds: float = 5.0) -> Any:  # noqa: ARG002
        self.requests += 1
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def edge(reply: Bearer | Exception, **sections: Any) -> tuple[ProtectedResource, OAuthStub]:
    directory, oauth = ConfigView(), OAuthStub(reply)
    access = {"staff": {"tools": ["*"]}}
    made = configured(**{"access": access, "servers": {"docs": {"url": f"{BASE}/x"}}, **sections})
    directory.projection.apply_change(configuration_change(made))
    directory.projection.apply_change(None)
    return ProtectedResource(directory, oauth, DPoPVerifier(BASE)), oauth


async def test_a_token_is_verified_by_oauth_once() -> None:
    identity, oauth = edge(bearer())
    for _ in range(3):
        await identity.verify(TOKEN, identity.resource(""))
    assert oauth.requests == 1


async def test_a_token_for_one_endpoint_is_rejected_at_others() -> None:
    identity, _ = edge(bearer(resource=f"{BASE}/mcp/docs"))
    await identity.verify(TOKEN, identity.resource("docs"))
    for server in ("", "mail", "docs/"):
        with pytest.raises(UnauthorizedError, match="another endpoint"):
            await identity.verify(TOKEN, identity.resource(server))


async def test_oauth_is_not_queried_without_access_rules_or_for_an_overlong_token() -> None:
    identity, oauth = edge(bearer(), access={})
    with pytest.raises(UnauthorizedError):
        await identity.verify(TOKEN, identity.resource(""))
    identity, other = edge(bearer())
    with pytest.raises(UnauthorizedError):
        await identity.verify(f"{TOKEN}{'x' * 9000}", identity.resource(""))
    assert oauth.requests + other.requests == 0


async def test_a_configured_key_that_looks_like_a_token_is_not_sent_to_oauth() -> None:
    identity, oauth = edge(bearer(), keys={"odd": key(TOKEN)})
    await identity.verify(TOKEN, identity.resource("docs"))
    assert oauth.requests == 0


def test_metadata_documents_exist_for_every_endpoint_and_no_other_path() -> None:
    identity, _ = edge(bearer())

    def reply(path: str, method: str = "GET") -> Any:
        answer = identity.metadata_response({"path": path, "method": method})
        return json.loads(answer.body)["resource"] if answer is not None else None

    root = "/.well-known/oauth-protected-resource"
    assert reply(root) == reply(f"{root}/mcp") == f"{BASE}/mcp"
    assert reply(f"{root}/mcp/docs") == f"{BASE}/mcp/docs"
    for path in (f"{root}/mcp/mail", f"{root}/mcp/docs/", f"{root}x", f"{root}/other", "/mcp"):
        assert reply(path) is None
    assert reply(root, "POST") is None
    assert edge(bearer(), access={})[0].metadata_response({"path": root, "method": "GET"}) is None


def test_a_challenge_names_its_endpoints_metadata_document() -> None:
    identity, _ = edge(bearer())
    where = {path: identity.challenge(path).decode() for path in ("/mcp/docs", "/mcp/no", "/sse")}
    document = f'resource_metadata="{BASE}/.well-known/oauth-protected-resource/mcp'
    assert where["/mcp/docs"].endswith(f'{document}/docs", scope="tools"')
    assert where["/mcp/no"].endswith(f'{document}", scope="tools"')
    assert where["/sse"] == where["/mcp/no"]
    assert edge(bearer(), access={})[0].challenge("/mcp") == b""


async def test_a_held_token_is_accepted_at_its_endpoint_only() -> None:
    identity, _ = edge(bearer(resource=f"{BASE}/mcp/docs"))
    await identity.verify(TOKEN, identity.resource("docs"))
    key_digest = key_digest_of(TOKEN)
    request = {b"authorization": b"Bearer x"}, {"method": "POST", "path": "/mcp/docs"}
    assert identity.holder_of(key_digest, "docs", *request)
    for wrong in ((key_digest, ""), (key_digest, "mail"), (key_digest_of("another"), "docs")):
        with pytest.raises(UnauthorizedError):
            identity.holder_of(*wrong, *request)
