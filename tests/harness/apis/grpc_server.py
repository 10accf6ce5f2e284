"""A gRPC server that reflects, a process of its own: `python -m harness.apis.grpc_server PORT`.

With CERTIFICATE KEY AUTHORITY behind it speaks TLS, to those that authority vouches for.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

from harness.apis.grpc_shop import Book


async def echo(request: Any, _context: Any) -> Any:
    """The same again."""
    return request


async def fail(request: Any, context: Any) -> Any:
    """An error that repeats what only we should know."""
    result = dict(context.invocation_metadata()).get("authorization", "")
    await context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.title} for {result}")


async def count(request: Any, _context: Any) -> Any:
    """As many messages as the book has pages."""
    for number in range(request.pages):
        yield Book(title=str(number))


async def gather(requests: Any, _context: Any) -> Any:
    """The last of several."""
    return [each async for each in requests][-1]


def asking(*files: str) -> Any:
    """TLS that asks who comes."""
    certificate, key, authority = (Path(each).read_bytes() for each in files)
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


async def serve(port: int, *secure: str) -> None:
    """Until it is killed."""
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
