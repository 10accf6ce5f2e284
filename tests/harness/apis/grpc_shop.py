"""Protobuf service of the tests' gRPC servers, in the form that protoc generates."""

from typing import Any

from google.protobuf import (  # noqa: F401 - imported, they are in the default pool
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

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
METHODS = {  # by name: whether the request is a stream, and whether the response is
    "Echo": (False, False),
    "Fail": (False, False),
    "Count": (False, True),
    "Gather": (True, False),
}


def described() -> descriptor_pb2.FileDescriptorProto:
    """Return the service's file descriptor as protoc would generate it."""
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
    for name, (streams_in, streams_out) in METHODS.items():
        service.method.add(
            name=name,
            input_type=".shop.Book",
            output_type=".shop.Book",
            client_streaming=streams_in,
            server_streaming=streams_out,
        )
    return file


POOL = descriptor_pool.Default()
POOL.Add(described())
Book: Any = message_factory.GetMessageClass(POOL.FindMessageTypeByName("shop.Book"))
