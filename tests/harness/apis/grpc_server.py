"""Server of a gRPC service with reflection.

Usage: `python -m harness.apis.grpc_server PORT [CERTIFICATE KEY AUTHORITY]`. With the last three
arguments the server uses TLS and accepts only clients with a certificate of that authority.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

from harness.apis.grpc_shop import Book


async def echo(request: Any, _context: Any) -> Any:
    """Return the request."""
    return request


async def fail(request: Any, context: Any) -> Any:
    """Fail with an error that repeats a secret."""
    result = dict(context.invocation_metadata()).get("authorization", "")
    await context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.title} for {result}")


async def count(request: Any, _context: Any) -> Any:
    """Stream one message per page of the book."""
    for number in range(request.pages):
        yield Book(title=str(number))


async def gather(requests: Any, _context: Any) -> Any:
    """Return the last message of the request stream."""
    return [each async for each in requests][-1]


def asking(*files: str) -> Any:
    """Return TLS credentials that require a client certificate."""
    certificate, key, authority = (Path(each).read_bytes() for each in files)
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


async def serve(port: int, *secure: str) -> None:
    """Serve until the process is killed."""
    server = grpc.aio.server()
    fields = {
        "request_deserializer": Book.FromString,
        "response_serializer": Book.SerializeToString,
    }
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo, **fields),
        "Fail": grpc.unary_unary_rpc_method_handler(fail, **fields),
        "Count": grpc.unary_stream_rpc_method_handler(count, **fields),
        "Gather": grpc.stream_unary_rpc_method_handler(gather, **fields),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
    reflection.enable_server_reflection(("shop.Shop", reflection.SERVICE_NAME), server)
    place = f"127.0.0.1:{port}"
    if secure:
        server.add_secure_port(place, asking(*secure))
    else:
        server.add_insecure_port(place)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), *sys.argv[2:]))
