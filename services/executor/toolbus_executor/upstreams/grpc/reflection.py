"""Reader of a server's descriptors by reflection, file by file and within limits.

The messages of reflection are equal in v1 and v1alpha. There are few of them, so this module
defines them.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError

MAX_SERVICES, MAX_FILES, LARGEST_FILES = 200, 500, 8 * 1024 * 1024
DEEPEST_IMPORT = 50
SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_OWN = "grpc.reflection."
_STRING, _BYTES, _MESSAGE, _INT32 = 9, 12, 11, 5
_ONE, _MANY = 1, 3

Exchange = Callable[[Any], Awaitable[Any]]  # sends a reflection request and returns the response


class ReflectionError(Exception):
    """The server's reflection cannot be used. The message is the reason."""


def _message(name: str, *fields: tuple[str, int, int, int, str]) -> Any:
    made = descriptor_pb2.DescriptorProto(name=name)
    for field, number, kind, label, of in fields:
        made.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)
    return made


def _described() -> descriptor_pb2.FileDescriptorProto:
    made = descriptor_pb2.FileDescriptorProto(name="reflection", package="r", syntax="proto3")
    made.message_type.extend(
        [
            _message(
                "Request",
                ("file_by_filename", 3, _STRING, _ONE, ""),
                ("file_containing_symbol", 4, _STRING, _ONE, ""),
                ("list_services", 7, _STRING, _ONE, ""),
            ),
            _message("Files", ("file_descriptor_proto", 1, _BYTES, _MANY, "")),
            _message("Service", ("name", 1, _STRING, _ONE, "")),
            _message("Services", ("service", 1, _MESSAGE, _MANY, ".r.Service")),
            _message("Failure", ("error_code", 1, _INT32, _ONE, "")),
            _message(
                "Response",
                ("files", 4, _MESSAGE, _ONE, ".r.Files"),
                ("services", 6, _MESSAGE, _ONE, ".r.Services"),
                ("failure", 7, _MESSAGE, _ONE, ".r.Failure"),
            ),
        ]
    )
    # A selected member of a `oneof` is serialized even if it is empty. `list_services` is always
    # empty.
    request = made.message_type[0]
    request.oneof_decl.add(name="request")
    for field in request.field:
        field.oneof_index = 0
    return made


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_described())
Request: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("r.Request"))
Response: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("r.Response"))


class Reflected:
    """The services of one server. Their descriptors are in a separate pool."""

    def __init__(self, exchange: Exchange) -> None:
        self.pool = descriptor_pool.DescriptorPool()
        self.services: list[ServiceDescriptor] = []
        self.left_out: dict[str, str] = {}
        self._exchange = exchange
        self._files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        self._added: set[str] = set()
        self._size = 0

    async def read(self) -> None:
        """Read the descriptors of all services. Raises `ReflectionError`."""
        response = await self._request(Request(list_services=""))
        names = [each.name for each in response.services.service if not each.name.startswith(_OWN)]
        for name in names[MAX_SERVICES:]:
            self.left_out[name] = f"there are more than {MAX_SERVICES} services"
        for name in sorted(names[:MAX_SERVICES]):
            try:
                await self._take(await self._request(Request(file_containing_symbol=name)))
                self.services.append(self.pool.FindServiceByName(name))
            except (ReflectionError, KeyError, TypeError, DecodeError, UnicodeError) as error:
                reason = str(error) if isinstance(error, ReflectionError) else "it is malformed"
                self.left_out[name] = f"its descriptor cannot be read: {reason}"

    async def _take(self, response: Any) -> None:
        names = [self._store(raw) for raw in response.files.file_descriptor_proto]
        for name in names:
            await self._add(name, 0)

    def _store(self, raw: bytes) -> str:
        self._size += len(raw)
        file = descriptor_pb2.FileDescriptorProto.FromString(raw)
        if file.name not in self._files:
            self._files[file.name] = file
        if self._size > LARGEST_FILES or len(self._files) > MAX_FILES:
            raise ReflectionError("its descriptors are too large")
        return str(file.name)

    async def _add(self, name: str, depth: int) -> None:
        """Add a file to the pool, after all files that it imports. Raises `ReflectionError`."""
        if name in self._added:
            return
        if depth > DEEPEST_IMPORT:
            raise ReflectionError("its files import each other too deeply")
        if name not in self._files:
            response = await self._request(Request(file_by_filename=name))
            for raw in response.files.file_descriptor_proto:
                self._store(raw)
        if name not in self._files:
            raise ReflectionError("the server does not provide an imported file")
        for needed in self._files[name].dependency:
            await self._add(needed, depth + 1)
        if name not in self._added:
            self.pool.Add(self._files[name])
            self._added.add(name)

    async def _request(self, request: Any) -> Any:
        response = await self._exchange(request)
        if response.HasField("failure"):
            code = response.failure.error_code
            raise ReflectionError(f"the server returned error code {code}")
        return response
