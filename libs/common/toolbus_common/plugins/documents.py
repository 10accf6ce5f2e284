"""The document about a call that plugins receive before it runs (no I/O)."""

from typing import Protocol

import msgspec

from toolbus_common import strict_json


class _Call(Protocol):
    @property
    def method(self) -> str: ...
    @property
    def tool(self) -> str: ...
    @property
    def arguments(self) -> bytes: ...


def document_of(call: _Call) -> bytes:
    """Return the arguments of a call, and the URI of a resource, as one document.

    Arguments that are not JSON are returned unchanged; no plugin can then read the document.
    """
    arguments = call.arguments or b"null"
    try:
        strict_json.parse(arguments)  # else they could alter the document around them
    except strict_json.StrictJSONError:
        return arguments
    members = {"arguments": msgspec.Raw(arguments)}
    if call.method.startswith("resources/"):
        members["uri"] = msgspec.Raw(msgspec.json.encode(call.tool))
    return msgspec.json.encode(members)
