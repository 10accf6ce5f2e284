"""HTTP API, GraphQL API and gRPC server that require access tokens, in one process.

Usage: `python -m harness.apis.protected_apis PORT GRPC_PORT ISSUER`. Each API introspects every
token at the issuer and returns the token's subject. Without a valid token, it returns 401 or
UNAUTHENTICATED.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from graphql import build_schema, graphql
from grpc_reflection.v1alpha import reflection
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from harness.apis.grpc_shop import Book
from harness.apis.rest_process import TESTS
from harness.engines.engine import own_port
from harness.engines.http_engine import HttpEngine
from harness.oauth.protected_server import Introspecting

SCHEMA = build_schema("type Query { whoami: String!  repeat: String! }")
CHALLENGE = {"WWW-Authenticate": "Bearer"}


class ProtectedApis(HttpEngine):
    """The process of the APIs. `issuer` is the trusted authorization server."""

    def __init__(self, directory: Path, issuer: str) -> None:
        super().__init__(directory)
        self._issuer = issuer
        self.grpc_port = own_port()

    def command(self) -> list[str]:
        """Return the command line."""
        python = ["/usr/bin/env", f"PYTHONPATH={TESTS}", sys.executable]
        ports = [str(self.port), str(self.grpc_port)]
        return [*python, "-m", "harness.apis.protected_apis", *ports, self._issuer]

    def start(self) -> None:
        """Start the process and return once both ports accept connections."""
        super().start()
        self.wait_for(self.grpc_port)


class Apis:
    """The responses of the two HTTP APIs."""

    def __init__(self, port: int, asks: Introspecting) -> None:
        self._base = f"http://127.0.0.1:{port}/api"
        self._verifier = asks

    async def subject(self, authorization: str) -> str:
        """Return the subject of the token; empty if the token is not valid."""
        scheme, _, token = authorization.partition(" ")
        found = await self._verifier.introspect(token) if scheme == "Bearer" and token else {}
        return str(found.get("subject", ""))

    async def document(self, _request: Request) -> Response:
        """Return the public OpenAPI document."""
        answer = {"200": {"description": "whose", "content": {"application/json": {}}}}
        paths = {
            f"/{name}": {"get": {"operationId": name, "responses": answer}}
            for name in ("whoami", "repeat")
        }
        about = {"openapi": "3.1.0", "info": {"title": "api", "version": "1"}}
        return JSONResponse({**about, "servers": [{"url": self._base}], "paths": paths})

    async def called(self, request: Request) -> Response:
        """Execute one operation. `repeat` leaks the token on purpose."""
        shown = request.headers.get("authorization", "")
        who = await self.subject(shown)
        if not who:
            return JSONResponse({"error": "unauthorized"}, 401, CHALLENGE)
        message = {"who": who}
        return JSONResponse(message | ({"shown": shown} if "repeat" in request.url.path else {}))

    async def query_graphql(self, request: Request) -> Response:
        """Execute one query or an introspection."""
        shown = request.headers.get("authorization", "")
        who = await self.subject(shown)
        if not who:
            return JSONResponse({"errors": [{"message": "unauthorized"}]}, 401, CHALLENGE)
        root = {"whoami": who, "repeat": shown}
        found = await graphql(SCHEMA, (await request.json())["query"], root_value=root)
        return JSONResponse(found.formatted)


class Guarded(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Interceptor that checks the token before every method, including reflection."""

    def __init__(self, apis: Apis) -> None:
        self._apis = apis

    async def intercept_service(self, go_on: Any, details: Any) -> Any:
        result = dict(details.invocation_metadata).get("authorization", "")
        handler = await go_on(details)
        if await self._apis.subject(result):
            return handler

        async def refuse(_request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no good token")

        kind = (
            grpc.stream_stream_rpc_method_handler
            if handler is not None and handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return kind(refuse)


async def serve(port: int, grpc_port: int, issuer: str) -> None:
    """Serve until the process is killed."""
    apis = Apis(port, Introspecting(issuer))

    async def echo(request: Any, context: Any) -> Any:
        result = dict(context.invocation_metadata())["authorization"]
        return Book(title=await apis.subject(result), tags=[result] if request.title else [])

    forms = {"request_deserializer": Book.FromString, "response_serializer": Book.SerializeToString}
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo, **forms)}
    server = grpc.aio.server(interceptors=(Guarded(apis),))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
    reflection.enable_server_reflection(("shop.Shop", reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    routes = [
        Route("/openapi.json", apis.document),
        Route("/api/{name}", apis.called),
        Route("/graphql", apis.query_graphql, methods=["POST"]),
    ]
    result = uvicorn.Config(Starlette(routes=routes), port=port, log_level="error")
    await uvicorn.Server(result).serve()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
