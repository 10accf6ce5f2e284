"""Checks of results for strict clients. A plain result is recognized by decoding it once.

A result that decodes as one of these forms is returned unchanged. Any other result is decoded
completely, and repaired if its meaning is certain. Otherwise the call fails.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.repair.definitions import ANNOTATIONS, META, resource
from toolbus_executor.repair.json_readers import (
    Member,
    Notes,
    Reader,
    UnreadableError,
    flag,
    list_of,
    object_of,
    one_of,
    open_object,
    text,
    whole,
)

MAX_VALUES = 100  # values of a completion
_ABSENT = Raw(b"")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_Meta = dict[str, Raw] | UnsetType
_Role = Literal["user", "assistant"]
_Optional = str | UnsetType


class _Hints(Struct):
    audience: list[_Role] | UnsetType = UNSET
    priority: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    lastModified: _Optional = UNSET  # noqa: N815 - MCP's member names, here and below


class _Part(Struct, tag_field="type"):
    annotations: _Hints | UnsetType = UNSET
    meta: _Meta = field(name="_meta", default=UNSET)


class _Text(_Part, tag="text", kw_only=True):
    text: str


class _Image(_Part, tag="image", kw_only=True):
    data: str
    mimeType: str  # noqa: N815


class _Audio(_Part, tag="audio", kw_only=True):
    data: str
    mimeType: str  # noqa: N815


class _Contents(Struct, kw_only=True):
    uri: str
    mimeType: _Optional = UNSET  # noqa: N815
    text: _Optional = UNSET
    blob: _Optional = UNSET
    meta: _Meta = field(name="_meta", default=UNSET)


class _Embedded(_Part, tag="resource", kw_only=True):
    resource: _Contents


class _Link(_Part, tag="resource_link", kw_only=True):
    name: str
    uri: str
    title: _Optional = UNSET
    description: _Optional = UNSET
    mimeType: _Optional = UNSET  # noqa: N815
    size: int | UnsetType = UNSET
    icons: UnsetType = UNSET  # a link with icons is decoded completely


_AnyPart = _Text | _Image | _Audio | _Embedded | _Link


class Owned(Struct):
    """The members of a result that the gateway reads."""

    resultType: str = ""  # noqa: N815
    isError: bool = False  # noqa: N815
    ttlMs: Raw = _ABSENT  # noqa: N815
    cacheScope: Raw = _ABSENT  # noqa: N815
    structuredContent: Raw = _ABSENT  # noqa: N815
    task: Raw = _ABSENT
    meta: _Meta = field(name="_meta", default=UNSET)
    content: Any = UNSET


class _OfTool(Owned):
    content: list[_AnyPart] | UnsetType = UNSET


class _Message(Struct):
    role: _Role
    content: _AnyPart


class _OfPrompt(Owned):
    description: _Optional = UNSET
    messages: list[_Message] | UnsetType = UNSET


class _OfResource(Owned):
    contents: list[_Contents] | UnsetType = UNSET


class _Completion(Struct):
    values: Annotated[list[str], Meta(max_length=MAX_VALUES)]
    total: int | UnsetType = UNSET
    hasMore: bool | UnsetType = UNSET  # noqa: N815


class _Completed(Owned):
    completion: _Completion | UnsetType = UNSET


_FORMS: dict[str, type[Owned]] = {
    TOOLS_CALL: _OfTool,
    "tasks/result": _OfTool,
    "prompts/get": _OfPrompt,
    "resources/read": _OfResource,
    "completion/complete": _Completed,
}
_DECODERS: dict[str, Callable[[bytes], Owned]] = {
    method: msgspec.json.Decoder(form).decode for method, form in _FORMS.items()
}
_other = msgspec.json.Decoder(Owned).decode


def read_result(raw: bytes, call: CallAdmitted) -> tuple[bytes, Owned]:
    """Return a result that clients can parse, and the members that the gateway reads.

    Raises:
        UpstreamInvalidError: the result is malformed or cannot be repaired.

    """
    decode = _DECODERS.get(call.method, _other)
    try:
        owned = decode(raw)
        if _is_plain(owned):
            return raw, owned
        raw = _repaired(raw, call)
        return raw, decode(raw)
    except msgspec.ValidationError:
        raw = _repaired(raw, call)
    except msgspec.DecodeError as error:
        raise UpstreamInvalidError("The upstream's result is malformed; fix the server.") from error
    try:
        return raw, decode(raw)
    except msgspec.ValidationError:
        return raw, _other(raw)  # the readers accept more than the forms


def _is_plain(owned: Owned) -> bool:
    """Return whether a decoded result needs no further check or repair.

    Its base64 is then valid, and no required content is missing.
    """
    if isinstance(owned, _OfTool):
        return not owned.content or all(map(_is_plain_part, owned.content))
    if owned.resultType not in ("", "complete"):
        return True
    if isinstance(owned, _OfPrompt):
        found = owned.messages
        return found is not UNSET and all(_is_plain_part(each.content) for each in found)
    if isinstance(owned, _OfResource):
        return owned.contents is not UNSET and all(map(_are_plain, owned.contents))
    return not isinstance(owned, _Completed) or owned.completion is not UNSET


def _is_plain_part(part: _AnyPart) -> bool:
    if part.annotations and part.annotations.lastModified:
        return False  # a timestamp needs the complete check
    if type(part) is _Text:
        return True
    if isinstance(part, _Image | _Audio):
        return is_base64(part.data)
    return not isinstance(part, _Embedded) or _are_plain(part.resource)


def _are_plain(contents: _Contents) -> bool:
    if contents.text is not UNSET:
        return True
    return contents.blob is not UNSET and is_base64(contents.blob)


def is_base64(encoded: str) -> bool:
    """Return whether every client can decode the text as base64."""
    return not encoded.encode().translate(None, _BASE64) and len(encoded.rstrip("=")) % 4 != 1


def _repaired(raw: bytes, call: CallAdmitted) -> bytes:
    try:
        whole_result = msgspec.json.decode(raw)
        found = _READERS.get(call.method, _OWNED)(whole_result, "", Notes())
    except UnreadableError as error:
        raise UpstreamInvalidError(
            f"The upstream's result cannot be parsed by clients: {error}. This is an error of the "
            "server, not of the arguments; the call was executed."
        ) from error
    contents = found.get("contents")
    if call.method == "resources/read" and isinstance(contents, list):
        for each in contents:
            each.setdefault("uri", call.tool)
    return msgspec.json.encode(found)


def _base64(value: Any, path: str, notes: Notes) -> str:
    encoded = text(value, path, notes)
    plain = "".join(encoded.split()).replace("-", "+").replace("_", "/")
    if not is_base64(plain):
        raise UnreadableError(f"{path} is not base64")
    return plain


def _one_of_parts(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    part = open_object(value, path, notes)
    reader = _PARTS.get(part.get("type", ""))
    if reader is None:
        raise UnreadableError(f"{path}.type must be one of {', '.join(_PARTS)}")
    found: dict[str, Any] = reader(part, path, notes)
    return found


def _contents(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    found: dict[str, Any] = _CONTENTS(value, path, notes)
    if "text" not in found and "blob" not in found:
        raise UnreadableError(f"{path} has neither text nor blob")
    return found


_NEEDED, _SPARE_TEXT = Member(text, needed=True), Member(text, spare=True)
_SHARED = {"annotations": Member(ANNOTATIONS, spare=True), "_meta": META}
_CONTENTS = object_of(
    {
        "uri": Member(text),
        "mimeType": _SPARE_TEXT,
        "text": Member(text),
        "blob": Member(_base64),
        "_meta": META,
    }
)
_DATA = {"data": Member(_base64, needed=True), "mimeType": _NEEDED, **_SHARED}
_PARTS: dict[Any, Reader] = {
    "text": object_of({"text": _NEEDED, **_SHARED}),
    "image": object_of(_DATA),
    "audio": object_of(_DATA),
    "resource": object_of({"resource": Member(_contents, needed=True), **_SHARED}),
    "resource_link": resource,
}
_MEMBERS = {"resultType": Member(text), "isError": Member(flag), "_meta": META}
_OWNED = object_of(_MEMBERS)
_ROLE = Member(one_of("user", "assistant"), needed=True)
_MESSAGE = object_of({"role": _ROLE, "content": Member(_one_of_parts, needed=True)})
_VALUES = object_of(
    {
        "values": Member(list_of(text, maximum=MAX_VALUES), needed=True),
        "total": Member(whole, spare=True),
        "hasMore": Member(flag, spare=True),
    }
)
_OF_TOOL = object_of({**_MEMBERS, "content": Member(list_of(_one_of_parts))})


def _complete(needed: str, reader: Reader, **more: Member) -> Reader:
    """Return a reader of results that need the member `needed`, unless they request input."""
    ended = object_of({**_MEMBERS, needed: Member(reader, needed=True), **more})

    def read(value: Any, path: str, notes: Notes) -> dict[str, Any]:
        found = open_object(value, path, notes)
        is_complete = found.get("resultType") in (None, "complete")
        whole_result: dict[str, Any] = (ended if is_complete else _OWNED)(found, path, notes)
        return whole_result

    return read


_READERS: dict[str, Reader] = {
    TOOLS_CALL: _OF_TOOL,
    "tasks/result": _OF_TOOL,
    "prompts/get": _complete("messages", list_of(_MESSAGE), description=_SPARE_TEXT),
    "resources/read": _complete("contents", list_of(_contents)),
    "completion/complete": _complete("completion", _VALUES),
}
