"""Caller identities for servers of every kind: signed, and for one audience only."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from graphql import build_schema, graphql_sync
from grpc_reflection.v1alpha import reflection

from conformance.upstream import FixtureServer
from harness.apis.grpc_shop import Book
from harness.network.json_server import Request, Response, answering
from harness.oauth.caller_identities import ISSUER, OF_ANN, Issuing
from harness.services.call_runner import CallRunner
from harness.waits import until
from toolbus_common.config import Server
from toolbus_common.crypto.p256 import P256Key
from toolbus_common.errors import UnavailableError, UpstreamDeadError
from toolbus_common.secrets import Secrets
from toolbus_executor.identity import keys as keeping
from toolbus_executor.upstreams.factory import reached
from toolbus_executor.upstreams.replicas.upstream import ReplicatedUpstream

HEADER = "toolbus-identity"
MCP_KINDS = ("modern", "legacy", "sse")
SCHEMA = build_schema("type Query { count: Int }")


@dataclass
class Api:
    """An HTTP API, and the requests it received."""

    origin: str = ""
    received: list[Request] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)  # paths that redirect, and their targets

    @contextmanager
    def serving(self) -> Iterator["Api"]:
        with answering(self._answer) as port:
            self.origin = f"http://127.0.0.1:{port}"
            yield self

    def _answer(self, request: Request) -> Response:
        self.received.append(request)
        if request.path == "/openapi.json":
            return Response(body=_document(self.origin))
        if request.path.startswith("/graphql"):
            body = graphql_sync(SCHEMA, request.json["query"], root_value={"count": 1})
            return Response(body=body.formatted)
        if request.path in self.moved:
            return Response(307, headers={"location": self.moved[request.path]})
        return Response(body={"fine": True})

    def tokens(self, path: str) -> list[str]:
        return [each.headers.get(HEADER, "") for each in self.received if each.path == path]


def _document(origin: str) -> dict[str, Any]:
    fields = {"name": "Toolbus-Identity", "in": "header", "schema": {"type": "string"}}
    done = {"200": {"description": "Done."}}
    parameters = [fields, {**fields, "name": "X-Other"}]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pets", "version": "1"},
        "servers": [{"url": f"{origin}/v1"}],
        "paths": {
            f"/{name}": {"get": {"operationId": name, "parameters": parameters, "responses": done}}
            for name in ("pets", "near", "far")
        },
    }


@dataclass
class Shop:
    """A gRPC server, and the metadata it received."""

    address: str = ""
    received: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Shop"]:
        server = grpc.aio.server(interceptors=[_Recorder(self.received)])
        fields = {
            "request_deserializer": Book.FromString,
            "response_serializer": Book.SerializeToString,
        }
        echo = grpc.unary_unary_rpc_method_handler(_echo, **fields)
        handlers = grpc.method_handlers_generic_handler("shop.Shop", {"Echo": echo})
        server.add_generic_rpc_handlers((handlers,))
        reflection.enable_server_reflection(("shop.Shop", reflection.SERVICE_NAME), server)
        self.address = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)


async def _echo(request: Any, _context: Any) -> Any:
    return request


class _Recorder(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, received: list[tuple[str, dict[str, str]]]) -> None:
        self._received = received

    async def intercept_service(self, go_on: Any, details: Any) -> Any:
        self._received.append((details.method, dict(details.invocation_metadata)))
        return await go_on(details)


@pytest.fixture(scope="module")
def mcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FixtureServer]]:
    options: dict[str, tuple[str, ...]] = {
        "modern": ("--family", "modern"),
        "legacy": ("--family", "legacy"),
    }
    options["sse"] = ("--family", "legacy", "--sse")
    servers = {
        name: FixtureServer(tmp_path_factory.mktemp("fixture"), *item)
        for name, item in options.items()
    }
    try:
        for each in servers.values():
            each.start()
        yield servers
    finally:
        for each in servers.values():
            each.kill()


@pytest.fixture
def api() -> Iterator[Api]:
    with Api().serving() as api:
        yield api


@asynccontextmanager
async def opened(issuing: Issuing, **declared: Any) -> AsyncIterator[CallRunner]:
    """Run a server with caller identities, connected as the supervisor connects it."""
    client, server = CallRunner(), Server(**{"identity": {}, **declared})
    await issuing.keys.wait_until_ready()
    found = await Secrets({}).read([])
    await client.open(reached(server, client.news, issuing.ways, found))
    try:
        yield client
    finally:
        await client.close()


def of_ann(claims: dict[str, Any], tool: str) -> None:
    """Check the claims of a call of ann's."""
    assert claims["sub"] == "ann"
    assert (claims["customer"], claims["team"], claims["key"]) == ("acme", "support", "staff:7f")
    assert claims["act"] == {"sub": "helper", "act": {"sub": "desk"}}
    assert (claims["jti"], claims["tool"]) == ("c1", tool)


@pytest.mark.parametrize("kind", MCP_KINDS)
async def test_each_request_to_an_mcp_server_names_its_caller(
    kind: str, mcp: dict[str, FixtureServer]
) -> None:
    server = mcp[kind]
    server.forget()
    url = server.url.replace("/mcp", "/sse") if kind == "sse" else server.url
    issuing = Issuing()
    async with opened(issuing, **{"sse" if kind == "sse" else "url": url}) as client:
        answer = await client.call("test_echo", {"text": "x"}, **OF_ANN)
        assert "x" in answer.text
    received = [(each["method"], each["headers"].get(HEADER)) for each in server.seen()["last"]]
    called = [token for method, token in received if method == "tools/call"]
    # The server itself announces the URL for messages: it is one server all the same.
    of_ann(issuing.read(called[0], url), "test_echo")
    own = [issuing.read(token, url) for method, token in received if method != "tools/call"]
    assert len(own) >= 2
    assert all(claims["sub"] == claims["iss"] == ISSUER for claims in own)
    assert not any({"key", "team", "tool", "act"} & claims.keys() for claims in own)


async def test_each_replica_receives_an_identity_for_itself(mcp: dict[str, FixtureServer]) -> None:
    issuing, client, url = Issuing(), CallRunner(), mcp["modern"].url
    mcp["modern"].forget()
    server = Server(replicas=({"url": url},), identity={})
    await issuing.keys.wait_until_ready()
    await client.open(ReplicatedUpstream("s", server, client.news, client.events, issuing.ways, {}))
    try:
        await client.call("test_echo", {"text": "x"}, **OF_ANN)
    finally:
        await client.close()
    received = mcp["modern"].seen()["last"]
    (called,) = (each["headers"][HEADER] for each in received if each["method"] == "tools/call")
    of_ann(issuing.read(called, url), "test_echo")


async def test_each_request_to_an_api_names_its_caller_and_no_argument_replaces_it(
    api: Api,
) -> None:
    issuing = Issuing()
    async with opened(issuing, openapi=f"{api.origin}/openapi.json") as client:
        (tool,) = (each for each in client.listing.tools if each.name == "pets")
        assert set(tool.definition["inputSchema"]["properties"]) == {"X-Other"}
        rejected = await client.call("pets", {"Toolbus-Identity": "forged"}, **OF_ANN)
        assert "Toolbus-Identity" in rejected.error.reason
        await client.call("pets", {"X-Other": "x\r\nToolbus-Identity: forged"}, **OF_ANN)
        await client.call("pets", {"X-Other": "mine"}, **OF_ANN)
    claims = [issuing.read(token, f"{api.origin}/v1") for token in api.tokens("/v1/pets")]
    assert claims
    for each in claims:
        of_ann(each, "pets")
    assert not any("forged" in each.headers[HEADER] for each in api.received)


async def test_a_credential_header_of_the_same_name_does_not_replace_the_identity(
    api: Api, tmp_path: Path
) -> None:
    document = _document(api.origin)
    scheme = {"type": "apiKey", "in": "header", "name": "toolbus-identity"}
    document |= {"components": {"securitySchemes": {"s": scheme}}, "security": [{"s": []}]}
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document))
    issuing = Issuing()
    fields = {"openapi": str(file), "credentials": {"s": "forged"}}
    async with opened(issuing, **fields) as client:
        await client.call("pets", {}, **OF_ANN)
    (token,) = api.tokens("/v1/pets")
    of_ann(issuing.read(token, f"{api.origin}/v1"), "pets")


async def test_a_redirect_carries_the_identity_at_the_same_server_only(api: Api) -> None:
    issuing = Issuing()
    with Api().serving() as other:
        api.moved = {"/v1/near": "/v1/there", "/v1/far": f"{other.origin}/v1/there"}
        async with opened(issuing, openapi=f"{api.origin}/openapi.json") as client:
            await client.call("near", {}, **OF_ANN)
            await client.call("far", {}, **OF_ANN)
        for token in (*api.tokens("/v1/near"), *api.tokens("/v1/there")):
            of_ann(issuing.read(token, f"{api.origin}/v1"), "near")
        assert len(api.tokens("/v1/there")) == len(api.tokens("/v1/far")) == 1
        assert other.received == []


async def test_a_document_at_another_origin_is_fetched_without_the_identity(api: Api) -> None:
    issuing = Issuing()
    with Api().serving() as elsewhere:
        body = {"openapi": f"{elsewhere.origin}/openapi.json", "base_url": f"{api.origin}/v1"}
        async with opened(issuing, **body) as client:
            await client.call("pets", {}, **OF_ANN)
        assert elsewhere.tokens("/openapi.json") == [""]
    assert api.tokens("/v1/pets") != [""]


async def test_a_graphql_api_receives_the_caller(api: Api) -> None:
    issuing, url = Issuing(), f"{api.origin}/graphql"
    async with opened(issuing, graphql=url) as client:
        (name,) = (each.name for each in client.listing.tools)
        await client.call(name, {}, **OF_ANN)
    *own, called = [issuing.read(token, url) for token in api.tokens("/graphql")]
    of_ann(called, name)
    assert {each["sub"] for each in own} == {ISSUER}


async def test_a_grpc_server_receives_the_caller() -> None:
    issuing = Issuing()
    async with Shop().serving() as shop, opened(issuing, grpc=shop.address) as client:
        await client.call("Shop_Echo", {"title": "x"}, **OF_ANN)
        (called,) = (each for method, each in shop.received if method == "/shop.Shop/Echo")
        of_ann(issuing.read(called[HEADER], shop.address), "Shop_Echo")
        request = [each[HEADER] for method, each in shop.received if "Reflection" in method]
        assert {issuing.read(token, shop.address)["sub"] for token in request} == {ISSUER}


async def test_the_identity_for_one_server_is_invalid_at_another(api: Api) -> None:
    issuing = Issuing()
    async with opened(issuing, graphql=f"{api.origin}/graphql?team=a") as client:
        await client.call(client.listing.tools[0].name, {}, **OF_ANN)
    token = api.received[-1].headers[HEADER]
    assert issuing.read(token, f"{api.origin}/graphql")["sub"] == "ann"
    for other in (api.origin, f"{api.origin}/graphq", f"{api.origin}/v1", "https://docs.test"):
        with pytest.raises(jwt.InvalidAudienceError):
            issuing.read(token, other)
    with pytest.raises(jwt.InvalidSignatureError):
        Issuing().read(token, f"{api.origin}/graphql")


async def test_the_header_is_configurable_and_without_configuration_no_identity_is_sent(
    api: Api,
) -> None:
    issuing = Issuing()
    url = f"{api.origin}/graphql"
    async with opened(issuing, graphql=url, identity={"header": "X-Who"}) as client:
        await client.call(client.listing.tools[0].name, {}, **OF_ANN)
    assert all("x-who" in each.headers and HEADER not in each.headers for each in api.received)
    api.received.clear()
    async with opened(issuing, graphql=url, identity=None) as client:
        await client.call(client.listing.tools[0].name, {}, **OF_ANN)
    assert not any("ES256" in str(each.headers) or HEADER in each.headers for each in api.received)
    assert issuing.queries == 1


async def test_a_key_without_a_user_is_named_and_the_default_customer_is_omitted(
    api: Api,
) -> None:
    issuing, url = Issuing(), f"{api.origin}/graphql"
    about = {"key": "bot", "customer": "default", "identity": {}}
    async with opened(issuing, graphql=url) as client:
        await client.call(client.listing.tools[0].name, {}, **about)
    claims = issuing.read(api.tokens("/graphql")[-1], url)
    assert (claims["sub"], claims["key"]) == ("key:bot", "bot")
    assert not {"customer", "team", "act"} & claims.keys()


async def test_without_a_signing_key_nothing_is_sent_and_the_call_reports_the_fix(api: Api) -> None:
    issuing = Issuing()
    issuing.away = True
    with pytest.raises(UnavailableError, match=r"not available yet.* No oauth service is running"):
        await issuing.keys.wait_until_ready()
    server = Server(graphql=f"{api.origin}/graphql", identity={})
    client = CallRunner()
    upstream = reached(server, client.news, issuing.ways, {})
    try:
        with pytest.raises(UpstreamDeadError, match="No oauth service is running"):
            await upstream.open()
    finally:
        await upstream.close()
    assert api.received == []


async def test_a_call_admitted_without_an_identity_is_not_sent(
    api: Api,
) -> None:
    issuing = Issuing()
    async with opened(issuing, graphql=f"{api.origin}/graphql") as client:
        before = len(api.received)
        answer = await client.call(client.listing.tools[0].name, {}, **{**OF_ANN, "identity": None})
        assert "retry shortly" in answer.error.reason
        assert client.outcome.sent is False
        assert len(api.received) == before


async def test_during_an_outage_of_oauth_the_signing_key_is_used_for_a_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "AGAIN_SECONDS", 0.0)
    issuing = Issuing()
    await issuing.keys.wait_until_ready()
    issuing.away = True
    before = issuing.queries
    await until(lambda: issuing.queries > before + 1, "the failed request to oauth")
    assert issuing.keys.now().issuer == ISSUER
    monkeypatch.setattr(keeping, "GOOD_SECONDS", 0.0)
    issuing.away = False
    before = issuing.queries
    await until(lambda: issuing.queries > before + 1, "an expired key")
    issuing.away = True
    with pytest.raises(UnavailableError):
        issuing.keys.now()


async def test_the_next_signing_key_is_requested_without_any_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "FRESH_SECONDS", 0.0)
    issuing = Issuing()
    await issuing.keys.wait_until_ready()
    await until(lambda: issuing.queries > 1, "another request to oauth")


async def test_an_unreadable_signing_key_does_not_stop_the_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "AGAIN_SECONDS", 0.0)
    issuing = Issuing()
    monkeypatch.setattr(P256Key, "of", _unreadable)
    with pytest.raises(UnavailableError):
        await issuing.keys.wait_until_ready()
    before = issuing.queries
    await until(lambda: issuing.queries > before, "another request to oauth")


def _unreadable(_stored: str) -> P256Key:
    raise ValueError("this is no key")


async def test_the_signing_key_is_in_no_representation_of_its_holders() -> None:
    issuing = Issuing()
    await issuing.keys.wait_until_ready()
    dialer = issuing.ways.to(Server(graphql="https://docs.test", identity={}), "")
    text = repr((issuing.ways, dialer, issuing.keys.now(), await issuing.reply()))
    assert ISSUER in text
    assert issuing.key.kept not in text
