"""Tools derived from reflected gRPC services, and the messages of their calls."""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Operations
from toolbus_common.errors import InvalidArgumentsError, UpstreamInvalidError
from toolbus_common.openapi import BINDING
from toolbus_executor.upstreams.grpc.reflection import Reflected
from toolbus_executor.upstreams.grpc.schemas import TooManyError, schema_of

DEEPEST = 60
_FIELD = re.compile(r"Failed to parse ([A-Za-z0-9_.\[\]-]{1,100}) field")
_CLIENT_STREAMS = "its request is a stream, and a call has one set of arguments"


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a gRPC service, as a tool."""

    path: str
    streams: bool  # whether the response is a stream
    definition: dict[str, Any]
    descriptor: MethodDescriptor
    pool: Any

    @property
    def binding(self) -> str:
        """A digest that identifies the method and its message types."""
        return str(self.definition["_meta"][BINDING])

    def request(self, arguments: Any) -> bytes:
        """Return the encoded request message for these arguments.

        Raises `InvalidArgumentsError`; its message contains no values.
        """
        made: Message = message_factory.GetMessageClass(self.descriptor.input_type)()
        try:
            json_format.ParseDict(
                arguments, made, descriptor_pool=self.pool, max_recursion_depth=DEEPEST
            )
            return bytes(made.SerializeToString())
        except (json_format.Error, ValueError, TypeError, RecursionError) as error:
            found = _FIELD.search(str(error))
            where = f"{found[1]!r} does not match" if found else "they do not match"
            raise InvalidArgumentsError(
                f"Invalid arguments: {where} {self.descriptor.input_type.full_name} as defined in "
                "the tool's schema. Nothing was sent.",
                sent=False,
            ) from error
        except Exception as error:  # protobuf's error for a missing required field
            raise InvalidArgumentsError(
                "Invalid arguments: a field that the schema requires is missing. Nothing was sent.",
                sent=False,
            ) from error

    def as_json(self, raw: bytes) -> dict[str, Any]:
        """Return an encoded response message as JSON. Raises `UpstreamInvalidError`."""
        try:
            made = message_factory.GetMessageClass(self.descriptor.output_type).FromString(raw)
            found = json_format.MessageToDict(made, descriptor_pool=self.pool)
        except (DecodeError, json_format.Error, ValueError, TypeError, RecursionError) as error:
            raise UpstreamInvalidError(
                "The upstream's response does not match its reflected message type; fix the server."
            ) from error
        return found if isinstance(found, dict) else {"value": found}


def methods_in(
    reflected: Reflected, wanted: Operations, address: str
) -> tuple[dict[str, Method], dict[str, str]]:
    """Return the tools by name, and the omitted methods with the reasons.

    Only the methods that `wanted` selects are considered. `address` becomes a part of the digest of
    each tool.
    """
    found: dict[str, Method] = {}
    left_out = dict(reflected.left_out)
    for service in reflected.services:
        for each in service.methods:
            path = f"{service.full_name}/{each.name}"
            if not granted(wanted.include, path) or granted(wanted.exclude, path):
                continue
            if each.client_streaming:
                left_out[path] = _CLIENT_STREAMS
                continue
            name = f"{service.name}_{each.name}"
            if name in found:
                name = f"{service.full_name.replace('.', '_')}_{each.name}"
            try:
                found[name] = _method(reflected, each, path, name, address)
            except TooManyError as error:
                left_out[path] = str(error)
    return found, left_out


def _method(
    reflected: Reflected, each: MethodDescriptor, path: str, name: str, address: str
) -> Method:
    suffix = ", a stream of which the first messages are returned" if each.server_streaming else ""
    identity = f"{address} {path} {each.input_type.full_name} {each.output_type.full_name}"
    definition = {
        "name": name,
        "description": f"gRPC {path}: returns {each.output_type.full_name}{suffix}.",
        "inputSchema": schema_of(each.input_type),
        "_meta": {BINDING: sha256(identity.encode()).hexdigest()[:32]},
    }
    return Method(f"/{path}", each.server_streaming, definition, each, reflected.pool)
