"""A gRPC server that reflects, a process of its own: `python -m harness.grpc_server PORT`."""

import asyncio
import sys
from typing import Any

import grpc
from google.protobuf import (  # noqa: F401 - imported, they are in the default pool
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from grpc_reflection.v1alpha import reflection

STRING, INT64, MESSAGE, ENUM, BYTES, DOUBLE = 9, 3, 11, 14, 12, 1
BOOK = (
    ("title", 1, STRING, 1, ""),
    ("pages", 2, INT64, 1, ""),
    ("genre", 3, ENUM, 1, ".shop.Genre"),
    ("tags", 4, STRING, 3, ""),
    ("sequel", 5, MESSAGE, 1, ".shop.Book"),
    ("printed_at", 6, MESSAGE, 1, ".google.protobuf.Timestamp"),
    ("extra", 7, MESSAGE, 1, ".google.protobuf.Struct"),
    ("cover", 8, BYTES, 1, ""),
    ("rating", 9, MESSAGE, 1, ".google.protobuf.DoubleValue"),
    ("stock", 10, MESSAGE, 3, ".shop.Book.StockEntry"),
)
METHODS = {  # name: whether the request, and the answer, is a stream
    "Echo": (False, False),
    "Fail": (False, False),
    "Count": (False, True),
    "Gather": (True, False),
}


def described() -> descriptor_pb2.FileDescriptorProto:
    """The service, as a compiler of protobuf would have it."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    known = ("timestamp", "struct", "wrappers")
    file.dependency.extend(f"google/protobuf/{each}.proto" for each in known)
    genre = file.enum_type.add(name="Genre")
    for number, name in enumerate(("UNKNOWN", "NOVEL", "ESSAY")):
        genre.value.add(name=name, number=number)
    book = file.message_type.add(name="Book")
    for name, number, kind, label, of in BOOK:
        book.field.add(name=name, number=number, type=kind, label=label, type_name=of or None)
    entry = book.nested_type.add(name="StockEntry", options={"map_entry": True})
    entry.field.add(name="key", number=1, type=STRING, label=1)
    entry.field.add(name="value", number=2, type=INT64, label=1)
    service = file.service.add(name="Shop")
    for name, (asks, tells) in METHODS.items():
        service.method.add(
            name=name,
            input_type=".shop.Book",
            output_type=".shop.Book",
            client_streaming=asks,
            server_streaming=tells,
        )
    return file


POOL = descriptor_pool.Default()
POOL.Add(described())
Book: Any = message_factory.GetMessageClass(POOL.FindMessageTypeByName("shop.Book"))


async def echo(request: Any, _context: Any) -> Any:
    """The same again."""
    return request


async def fail(request: Any, context: Any) -> Any:
    """An error that repeats what only we should know."""
    told = dict(context.invocation_metadata()).get("authorization", "")
    await context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.title} for {told}")


async def count(request: Any, _context: Any) -> Any:
    """As many messages as the book has pages."""
    for number in range(request.pages):
        yield Book(title=str(number))


async def gather(requests: Any, _context: Any) -> Any:
    """The last of several."""
    return [each async for each in requests][-1]


async def serve(port: int) -> None:
    """Until it is killed."""
    server = grpc.aio.server()
    told = {"request_deserializer": Book.FromString, "response_serializer": Book.SerializeToString}
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo, **told),
        "Fail": grpc.unary_unary_rpc_method_handler(fail, **told),
        "Count": grpc.unary_stream_rpc_method_handler(count, **told),
        "Gather": grpc.stream_unary_rpc_method_handler(gather, **told),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
    reflection.enable_server_reflection(("shop.Shop", reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
