"""Servers that are told who calls: of every kind, for themselves alone, and by nobody but us."""

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
    """An HTTP API, and the headers of what it was asked."""

    origin: str = ""
    seen: list[Request] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)  # paths that lead elsewhere, and where

    @contextmanager
    def serving(self) -> Iterator["Api"]:
        with answering(self._answer) as port:
            self.origin = f"http://127.0.0.1:{port}"
            yield self

    def _answer(self, request: Request) -> Response:
        self.seen.append(request)
        if request.path == "/openapi.json":
            return Response(body=_document(self.origin))
        if request.path.startswith("/graphql"):
            body = graphql_sync(SCHEMA, request.json["query"], root_value={"count": 1})
            return Response(body=body.formatted)
        if request.path in self.moved:
            return Response(307, headers={"location": self.moved[request.path]})
        return Response(body={"fine": True})

    def tokens(self, path: str) -> list[str]:
        return [each.headers.get(HEADER, "") for each in self.seen if each.path == path]


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
    """A gRPC server, and the metadata it was sent."""

    address: str = ""
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Shop"]:
        server = grpc.aio.server(interceptors=[_Keeping(self.seen)])
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


class _Keeping(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, seen: list[tuple[str, dict[str, str]]]) -> None:
        self._seen = seen

    async def intercept_service(self, go_on: Any, details: Any) -> Any:
        self._seen.append((details.method, dict(details.invocation_metadata)))
        return await go_on(details)


@pytest.fixture(scope="module")
def mcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FixtureServer]]:
    options: dict[str, tuple[str, ...]] = {
        "modern": ("--family", "modern"),
        "legacy": ("--family", "legacy"),
    }
    options["sse"] = ("--family", "legacy", "--sse")
    made = {
        name: FixtureServer(tmp_path_factory.mktemp("fixture"), *item)
        for name, item in options.items()
    }
    try:
        for each in made.values():
            each.start()
        yield made
    finally:
        for each in made.values():
            each.kill()


@pytest.fixture
def api() -> Iterator[Api]:
    with Api().serving() as made:
        yield made


@asynccontextmanager
async def opened(issuing: Issuing, **declared: Any) -> AsyncIterator[CallRunner]:
    """A runner over a server that is told who calls, reached as a keeper reaches it."""
    bench, server = CallRunner(), Server(**{"identity": {}, **declared})
    await issuing.keys.wait_until_ready()
    found = await Secrets({}).read([])
    await bench.open(reached(server, bench.news, issuing.ways, found))
    try:
        yield bench
    finally:
        await bench.close()


def of_ann(claims: dict[str, Any], tool: str) -> None:
    """What a server is told of a call of hers."""
    assert claims["sub"] == "ann"
    assert (claims["customer"], claims["team"], claims["key"]) == ("acme", "support", "staff:7f")
    assert claims["act"] == {"sub": "helper", "act": {"sub": "desk"}}
    assert (claims["jti"], claims["tool"]) == ("c1", tool)


@pytest.mark.parametrize("kind", MCP_KINDS)
async def test_each_request_to_a_server_of_mcp_says_who_makes_it(
    kind: str, mcp: dict[str, FixtureServer]
) -> None:
    server = mcp[kind]
    server.forget()
    url = server.url.replace("/mcp", "/sse") if kind == "sse" else server.url
    issuing = Issuing()
    async with opened(issuing, **{"sse" if kind == "sse" else "url": url}) as bench:
        answer = await bench.call("test_echo", {"text": "x"}, **OF_ANN)
        assert "x" in answer.text
    seen = [(each["method"], each["headers"].get(HEADER)) for each in server.seen()["last"]]
    called = [token for method, token in seen if method == "tools/call"]
    # The URL that messages are posted to is told by the server: it is one server all the same.
    of_ann(issuing.read(called[0], url), "test_echo")
    own = [issuing.read(token, url) for method, token in seen if method != "tools/call"]
    assert len(own) >= 2
    assert all(claims["sub"] == claims["iss"] == ISSUER for claims in own)
    assert not any({"key", "team", "tool", "act"} & claims.keys() for claims in own)


async def test_each_replica_is_told_who_calls_for_itself(mcp: dict[str, FixtureServer]) -> None:
    issuing, bench, url = Issuing(), CallRunner(), mcp["modern"].url
    mcp["modern"].forget()
    server = Server(replicas=({"url": url},), identity={})
    await issuing.keys.wait_until_ready()
    await bench.open(ReplicatedUpstream("s", server, bench.news, bench.events, issuing.ways, {}))
    try:
        await bench.call("test_echo", {"text": "x"}, **OF_ANN)
    finally:
        await bench.close()
    seen = mcp["modern"].seen()["last"]
    (called,) = (each["headers"][HEADER] for each in seen if each["method"] == "tools/call")
    of_ann(issuing.read(called, url), "test_echo")


async def test_each_request_to_an_api_says_who_makes_it_and_no_argument_does(api: Api) -> None:
    issuing = Issuing()
    async with opened(issuing, openapi=f"{api.origin}/openapi.json") as bench:
        (tool,) = (each for each in bench.listing.tools if each.name == "pets")
        assert set(tool.definition["inputSchema"]["properties"]) == {"X-Other"}
        tried = await bench.call("pets", {"Toolbus-Identity": "forged"}, **OF_ANN)
        assert "Toolbus-Identity" in tried.error.reason
        await bench.call("pets", {"X-Other": "x\r\nToolbus-Identity: forged"}, **OF_ANN)
        await bench.call("pets", {"X-Other": "mine"}, **OF_ANN)
    claims = [issuing.read(token, f"{api.origin}/v1") for token in api.tokens("/v1/pets")]
    assert claims
    for each in claims:
        of_ann(each, "pets")
    assert not any("forged" in each.headers[HEADER] for each in api.seen)


async def test_a_credential_of_the_same_name_does_not_stand_in_its_place(
    api: Api, tmp_path: Path
) -> None:
    document = _document(api.origin)
    scheme = {"type": "apiKey", "in": "header", "name": "toolbus-identity"}
    document |= {"components": {"securitySchemes": {"s": scheme}}, "security": [{"s": []}]}
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document))
    issuing = Issuing()
    fields = {"openapi": str(file), "credentials": {"s": "forged"}}
    async with opened(issuing, **fields) as bench:
        await bench.call("pets", {}, **OF_ANN)
    (token,) = api.tokens("/v1/pets")
    of_ann(issuing.read(token, f"{api.origin}/v1"), "pets")


async def test_a_redirection_carries_it_on_at_its_own_server_and_to_no_other(api: Api) -> None:
    issuing = Issuing()
    with Api().serving() as other:
        api.moved = {"/v1/near": "/v1/there", "/v1/far": f"{other.origin}/v1/there"}
        async with opened(issuing, openapi=f"{api.origin}/openapi.json") as bench:
            await bench.call("near", {}, **OF_ANN)
            await bench.call("far", {}, **OF_ANN)
        for token in (*api.tokens("/v1/near"), *api.tokens("/v1/there")):
            of_ann(issuing.read(token, f"{api.origin}/v1"), "near")
        assert len(api.tokens("/v1/there")) == len(api.tokens("/v1/far")) == 1
        assert other.seen == []


async def test_a_document_that_lies_at_another_origin_is_fetched_without_it(api: Api) -> None:
    issuing = Issuing()
    with Api().serving() as elsewhere:
        body = {"openapi": f"{elsewhere.origin}/openapi.json", "base_url": f"{api.origin}/v1"}
        async with opened(issuing, **body) as bench:
            await bench.call("pets", {}, **OF_ANN)
        assert elsewhere.tokens("/openapi.json") == [""]
    assert api.tokens("/v1/pets") != [""]


async def test_a_graphql_api_is_told_who_calls(api: Api) -> None:
    issuing, url = Issuing(), f"{api.origin}/graphql"
    async with opened(issuing, graphql=url) as bench:
        (name,) = (each.name for each in bench.listing.tools)
        await bench.call(name, {}, **OF_ANN)
    *own, called = [issuing.read(token, url) for token in api.tokens("/graphql")]
    of_ann(called, name)
    assert {each["sub"] for each in own} == {ISSUER}


async def test_a_grpc_server_is_told_who_calls() -> None:
    issuing = Issuing()
    async with Shop().serving() as shop, opened(issuing, grpc=shop.address) as bench:
        await bench.call("Shop_Echo", {"title": "x"}, **OF_ANN)
        (called,) = (each for method, each in shop.seen if method == "/shop.Shop/Echo")
        of_ann(issuing.read(called[HEADER], shop.address), "Shop_Echo")
        request = [each[HEADER] for method, each in shop.seen if "Reflection" in method]
        assert {issuing.read(token, shop.address)["sub"] for token in request} == {ISSUER}


async def test_what_one_server_was_told_is_of_no_use_at_another(api: Api) -> None:
    issuing = Issuing()
    async with opened(issuing, graphql=f"{api.origin}/graphql?team=a") as bench:
        await bench.call(bench.listing.tools[0].name, {}, **OF_ANN)
    token = api.seen[-1].headers[HEADER]
    assert issuing.read(token, f"{api.origin}/graphql")["sub"] == "ann"
    for other in (api.origin, f"{api.origin}/graphq", f"{api.origin}/v1", "https://docs.test"):
        with pytest.raises(jwt.InvalidAudienceError):
            issuing.read(token, other)
    with pytest.raises(jwt.InvalidSignatureError):
        Issuing().read(token, f"{api.origin}/graphql")


async def test_a_declared_name_is_the_headers_and_a_server_without_identity_is_told_nothing(
    api: Api,
) -> None:
    issuing = Issuing()
    url = f"{api.origin}/graphql"
    async with opened(issuing, graphql=url, identity={"header": "X-Who"}) as bench:
        await bench.call(bench.listing.tools[0].name, {}, **OF_ANN)
    assert all("x-who" in each.headers and HEADER not in each.headers for each in api.seen)
    api.seen.clear()
    async with opened(issuing, graphql=url, identity=None) as bench:
        await bench.call(bench.listing.tools[0].name, {}, **OF_ANN)
    assert not any("ES256" in str(each.headers) or HEADER in each.headers for each in api.seen)
    assert issuing.queries == 1


async def test_a_call_of_a_key_without_a_user_says_so_and_who_pays_by_default_is_no_customer(
    api: Api,
) -> None:
    issuing, url = Issuing(), f"{api.origin}/graphql"
    about = {"key": "bot", "customer": "default", "identity": {}}
    async with opened(issuing, graphql=url) as bench:
        await bench.call(bench.listing.tools[0].name, {}, **about)
    claims = issuing.read(api.tokens("/graphql")[-1], url)
    assert (claims["sub"], claims["key"]) == ("key:bot", "bot")
    assert not {"customer", "team", "act"} & claims.keys()


async def test_without_a_key_nothing_is_sent_and_a_call_is_told_what_to_do(api: Api) -> None:
    issuing = Issuing()
    issuing.away = True
    with pytest.raises(UnavailableError, match=r"not available yet.* No oauth service is running"):
        await issuing.keys.wait_until_ready()
    server = Server(graphql=f"{api.origin}/graphql", identity={})
    bench = CallRunner()
    upstream = reached(server, bench.news, issuing.ways, {})
    try:
        with pytest.raises(UpstreamDeadError, match="No oauth service is running"):
            await upstream.open()
    finally:
        await upstream.close()
    assert api.seen == []


async def test_a_call_that_policy_admitted_before_it_knew_is_not_sent_in_nobodys_name(
    api: Api,
) -> None:
    issuing = Issuing()
    async with opened(issuing, graphql=f"{api.origin}/graphql") as bench:
        before = len(api.seen)
        answer = await bench.call(bench.listing.tools[0].name, {}, **{**OF_ANN, "identity": None})
        assert "retry shortly" in answer.error.reason
        assert bench.outcome.sent is False
        assert len(api.seen) == before


async def test_while_oauth_is_away_the_key_at_hand_is_used_for_a_day_and_then_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "AGAIN_SECONDS", 0.0)
    issuing = Issuing()
    await issuing.keys.wait_until_ready()
    issuing.away = True
    before = issuing.queries
    await until(lambda: issuing.queries > before + 1, "that oauth was asked in vain")
    assert issuing.keys.now().issuer == ISSUER
    monkeypatch.setattr(keeping, "GOOD_SECONDS", 0.0)
    issuing.away = False
    before = issuing.queries
    await until(lambda: issuing.queries > before + 1, "a key that is good no longer")
    issuing.away = True
    with pytest.raises(UnavailableError):
        issuing.keys.now()


async def test_the_next_key_is_asked_for_where_nobody_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "FRESH_SECONDS", 0.0)
    issuing = Issuing()
    await issuing.keys.wait_until_ready()
    await until(lambda: issuing.queries > 1, "that oauth was asked again")


async def test_an_answer_that_cannot_be_understood_does_not_end_the_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "AGAIN_SECONDS", 0.0)
    issuing = Issuing()
    monkeypatch.setattr(P256Key, "of", _unreadable)
    with pytest.raises(UnavailableError):
        await issuing.keys.wait_until_ready()
    before = issuing.queries
    await until(lambda: issuing.queries > before, "that oauth was asked again")


def _unreadable(_kept: str) -> P256Key:
    raise ValueError("this is no key")


async def test_nothing_of_the_key_is_shown_with_what_holds_it() -> None:
    issuing = Issuing()
    await issuing.keys.wait_until_ready()
    way = issuing.ways.to(Server(graphql="https://docs.test", identity={}), "")
    shown = repr((issuing.ways, way, issuing.keys.now(), await issuing.reply()))
    assert ISSUER in shown
    assert issuing.key.kept not in shown
