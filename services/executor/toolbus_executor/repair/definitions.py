"""Repair of the definitions that servers list, so that strict clients can parse them.

A client that cannot parse one definition rejects the whole list. A repaired definition is accepted
by all of these: the schema of MCP's newest revisions, the zod schemas of the TypeScript SDK (1.x
and 2.x) and the pydantic models of the Python SDK (1.x and 2.x). Repair is idempotent.
"""

from typing import Any, NamedTuple

from pydantic import AnyUrl, TypeAdapter, ValidationError

from toolbus_executor.repair.json_readers import (
    Member,
    Notes,
    Reader,
    UnreadableError,
    flag,
    list_of,
    moment,
    object_of,
    one_of,
    open_object,
    share,
    text,
    whole,
)
from toolbus_executor.repair.schemas import input_schema, output_schema

_URL: TypeAdapter[AnyUrl] = TypeAdapter(AnyUrl)


class Read(NamedTuple):
    """A definition that clients can parse.

    `repaired` is a text about the repairs; empty without any.
    """

    definition: dict[str, Any]
    repaired: str = ""


def uri(value: Any, path: str, notes: Notes) -> str:
    """Return a URI that all clients can parse. Raises `UnreadableError`."""
    value_text = text(value, path, notes)
    try:
        _URL.validate_python(value_text)
    except ValidationError as error:
        raise UnreadableError(
            f"its {path} is not a URI: it needs a scheme, such as file:"
        ) from error
    return value_text


_TEXT, _SPARE_TEXT, _NEEDED = Member(text), Member(text, spare=True), Member(text, needed=True)
_ICON = object_of(
    {
        "src": _NEEDED,
        "mimeType": _SPARE_TEXT,
        "sizes": Member(list_of(text), spare=True),
        "theme": Member(one_of("light", "dark"), spare=True),
    }
)
_HINT = Member(flag, spare=True)
_HINTS = object_of(
    {
        "title": _SPARE_TEXT,
        "readOnlyHint": _HINT,
        "destructiveHint": _HINT,
        "idempotentHint": _HINT,
        "openWorldHint": _HINT,
    }
)
ANNOTATIONS = object_of(
    {
        "audience": Member(list_of(one_of("user", "assistant")), spare=True),
        "priority": Member(share, spare=True),
        "lastModified": Member(moment, spare=True),
    }
)
_EXECUTION = object_of(
    {"taskSupport": Member(one_of("required", "optional", "forbidden"), spare=True)}
)
META = Member(open_object, spare=True)
_SHARED = {
    "title": _SPARE_TEXT,
    "description": _TEXT,
    "icons": Member(list_of(_ICON, spare=True), spare=True),
    "_meta": META,
}
_TOOL = object_of(
    {
        "name": _NEEDED,
        **_SHARED,
        "inputSchema": Member(input_schema, needed=True),
        "outputSchema": Member(output_schema, spare=True),
        "annotations": Member(_HINTS, spare=True),
        "execution": Member(_EXECUTION, spare=True),
    }
)
_ARGUMENT = object_of(
    {
        "name": _NEEDED,
        "title": _SPARE_TEXT,
        "description": _TEXT,
        "required": Member(flag),
    }
)
_PROMPT = object_of({"name": _NEEDED, **_SHARED, "arguments": Member(list_of(_ARGUMENT))})
_RESOURCE_SHARED = {
    **_SHARED,
    "mimeType": _SPARE_TEXT,
    "annotations": Member(ANNOTATIONS, spare=True),
}
_RESOURCE_MEMBERS = {
    "uri": Member(uri, needed=True),
    "name": _NEEDED,
    **_RESOURCE_SHARED,
    "size": Member(whole, spare=True),
}
_RESOURCE = object_of(_RESOURCE_MEMBERS)
_TEMPLATE = object_of({"uriTemplate": _NEEDED, "name": _NEEDED, **_RESOURCE_SHARED})


def _named_by(key: str, reader: Reader) -> Reader:
    """Return a reader of entries that uses the member `key` as the name if the name is missing."""

    def read(value: Any, path: str, notes: Notes) -> dict[str, Any]:
        found = open_object(value, path, notes)
        if found.get("name") is None and isinstance(found.get(key), str):
            notes.add("name", f"was missing and is the {key}")
            found = {**found, "name": found[key]}
        entry: dict[str, Any] = reader(found, path, notes)
        return entry

    return read


resource = _named_by("uri", _RESOURCE)
_READERS: dict[str, Reader] = {
    "tools": _TOOL,
    "prompts": _PROMPT,
    "resources": resource,
    "templates": _named_by("uriTemplate", _TEMPLATE),
}


def read_definition(kind: str, definition: dict[str, Any]) -> Read:
    """Return a definition that clients can parse, with the repairs.

    Raises:
        UnreadableError: the definition cannot be repaired. The message is the reason.

    """
    notes = Notes()
    found = _READERS[kind](definition, "", notes)
    repaired = notes.text
    return Read(found, repaired) if repaired else Read(definition)
