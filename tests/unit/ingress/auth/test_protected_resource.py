"""Access tokens at the edge: verification, metadata documents, challenges."""

import json
from time import time
from typing import Any

import pytest

from harness.operating import key
from toolbus_common.access.config_snapshot import (
    ConfigProjection,
    key_digest_of,
)
from toolbus_common.config import Configuration
from toolbus_common.contracts import Bearer
from toolbus_common.errors import UnauthorizedError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION
from toolbus_ingress.auth.dpop import DPoPVerifier
from toolbus_ingress.auth.protected_resource import ProtectedResource

BASE = "https://gateway.test"

TOKEN = "eyJh.eyJp.c2ln"


def declared(**sections: Any) -> Configuration:
    return Configuration.model_validate(sections)


def bearer(**changes: Any) -> Bearer:
    fields = {"access": "staff", "user": "ann", "client": "c", "resource": f"{BASE}/mcp"}
    return Bearer(**{**fields, "ends": time() + 600, **changes})


class Asks(RequestReply):
    """Oauth as the edge hears it, without a bus between; it counts."""

    def __init__(self, told: Bearer | Exception) -> None:
        super().__init__("ingress", Bus("ingress", "nats://127.0.0.1:9"))
        self.told, self.asked = told, 0

    async def request(self, question: Any, answer: Any, seconds: float = 5.0) -> Any:  # noqa: ARG002
        self.asked += 1
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def edge(told: Bearer | Exception, **sections: Any) -> tuple[ProtectedResource, Asks]:
    directory, asks = ConfigProjection(), Asks(told)
    access = {"staff": {"tools": ["*"]}}
    made = declared(**{"access": access, "servers": {"docs": {"url": f"{BASE}/x"}}, **sections})
    directory.apply_change(Change(CONFIGURATION, made.model_dump_json().encode(), 1))
    directory.apply_change(None)
    return ProtectedResource(directory, asks, DPoPVerifier(BASE)), asks


async def test_oauth_is_asked_about_a_token_once() -> None:
    identity, asks = edge(bearer())
    for _ in range(3):
        await identity.verify(TOKEN, identity.resource(""))
    assert asks.asked == 1


async def test_a_token_for_one_endpoint_opens_no_other() -> None:
    identity, _ = edge(bearer(resource=f"{BASE}/mcp/docs"))
    await identity.verify(TOKEN, identity.resource("docs"))
    for server in ("", "mail", "docs/"):
        with pytest.raises(UnauthorizedError, match="another endpoint"):
            await identity.verify(TOKEN, identity.resource(server))


async def test_nobody_is_asked_where_nobody_may_sign_in_or_the_token_is_too_long() -> None:
    identity, asks = edge(bearer(), access={})
    with pytest.raises(UnauthorizedError):
        await identity.verify(TOKEN, identity.resource(""))
    identity, more = edge(bearer())
    with pytest.raises(UnauthorizedError):
        await identity.verify(f"{TOKEN}{'x' * 9000}", identity.resource(""))
    assert asks.asked + more.asked == 0


async def test_a_key_that_looks_like_a_token_stays_a_key() -> None:
    identity, asks = edge(bearer(), keys={"odd": key(TOKEN)})
    await identity.verify(TOKEN, identity.resource("docs"))
    assert asks.asked == 0


def test_documents_are_told_for_every_endpoint_and_no_other_path() -> None:
    identity, _ = edge(bearer())

    def told(path: str, method: str = "GET") -> Any:
        answer = identity.metadata_response({"path": path, "method": method})
        return json.loads(answer.body)["resource"] if answer is not None else None

    root = "/.well-known/oauth-protected-resource"
    assert told(root) == told(f"{root}/mcp") == f"{BASE}/mcp"
    assert told(f"{root}/mcp/docs") == f"{BASE}/mcp/docs"
    for path in (f"{root}/mcp/mail", f"{root}/mcp/docs/", f"{root}x", f"{root}/other", "/mcp"):
        assert told(path) is None
    assert told(root, "POST") is None
    assert edge(bearer(), access={})[0].metadata_response({"path": root, "method": "GET"}) is None


def test_a_challenge_names_the_document_of_its_own_endpoint() -> None:
    identity, _ = edge(bearer())
    where = {path: identity.challenge(path).decode() for path in ("/mcp/docs", "/mcp/no", "/sse")}
    document = f'resource_metadata="{BASE}/.well-known/oauth-protected-resource/mcp'
    assert where["/mcp/docs"].endswith(f'{document}/docs", scope="tools"')
    assert where["/mcp/no"].endswith(f'{document}", scope="tools"')
    assert where["/sse"] == where["/mcp/no"]
    assert edge(bearer(), access={})[0].challenge("/mcp") == b""


async def test_however_a_token_is_written_it_opens_its_own_endpoint_only() -> None:
    identity, _ = edge(bearer(resource=f"{BASE}/mcp/docs"))
    await identity.verify(TOKEN, identity.resource("docs"))
    key_digest = key_digest_of(TOKEN)
    request = {b"authorization": b"Bearer x"}, {"method": "POST", "path": "/mcp/docs"}
    assert identity.holder_of(key_digest, "docs", *request)
    for wrong in ((key_digest, ""), (key_digest, "mail"), (key_digest_of("another"), "docs")):
        with pytest.raises(UnauthorizedError):
            identity.holder_of(*wrong, *request)
