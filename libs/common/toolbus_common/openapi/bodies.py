"""Request bodies: the selected media type, and the schema of the argument `body`."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from toolbus_common.openapi.document import Document, DocumentError, Json
from toolbus_common.openapi.schemas import Schemas

Form = Literal["json", "form", "multipart", "text", "binary"]
MEDIA = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+*-]+")
_ORDER: tuple[Form, ...] = ("json", "form", "multipart", "text", "binary")

FILE: Json = {
    "type": "object",
    "properties": {
        "data": {"type": "string", "contentEncoding": "base64"},
        "filename": {"type": "string"},
        "media_type": {"type": "string"},
    },
    "required": ["data"],
    "additionalProperties": False,
}
BINARY: Json = {"type": "string", "contentEncoding": "base64", "description": "In base64."}


@dataclass(frozen=True, slots=True)
class Body:
    """The encoding of a request body. `parts` are the media types of single parts of a form."""

    form: Form
    media: str
    required: bool
    files: tuple[str, ...] = ()
    parts: tuple[tuple[str, str], ...] = ()
    joined: tuple[str, ...] = ()  # form lists that are joined with commas


def body_of(document: Document, request_body: Any, schemas: Schemas) -> tuple[Body | None, Json]:
    """Return the encoding of an operation's body, and the schema of the argument `body`.

    Raises:
        DocumentError: none of the media types is supported.

    """
    if request_body is None:
        return None, {}
    node = document.resolved(request_body)
    content = node.get("content")
    offered = (
        {_form(media): media for media in reversed(content)} if isinstance(content, dict) else {}
    )
    form = next((each for each in _ORDER if each in offered), None)
    if form is None:
        shown = ", ".join(map(str, content or ()))[:80]
        raise DocumentError(f"its body has no supported media type ({shown})")
    assert isinstance(content, dict)  # noqa: S101 - the form was found in it
    media = offered[form]
    details = document.resolved(content[media]) if content[media] else {}
    schema, files = _schema(form, details.get("schema", {}), schemas)
    if description := schemas.text(node.get("description")):
        schema = {"description": description} | schema
    media = "application/json" if form == "json" and "*" in media else media
    parts, joined = _encodings(details.get("encoding"))
    return Body(form, media, node.get("required") is True, files, parts, joined), schema


def _form(media: str) -> Form | None:
    plain = media.partition(";")[0].strip().lower()
    if not MEDIA.fullmatch(plain):
        return None
    if plain in ("application/json", "*/*", "application/*") or plain.endswith("+json"):
        return "json"
    if plain == "application/x-www-form-urlencoded":
        return "form"
    if plain == "multipart/form-data":
        return "multipart"
    if plain.startswith("text/") or plain.endswith(("/xml", "+xml", "/yaml", "/x-ndjson")):
        return "text"
    return None if plain.startswith("multipart/") or "*" in plain else "binary"


def _schema(form: Form, node: Any, schemas: Schemas) -> tuple[Json, tuple[str, ...]]:
    if form == "text":
        return {"type": "string"}, ()
    if form == "binary":
        return BINARY, ()
    schema = schemas.translate(node)
    if form == "json":
        return schema, ()
    members = schema.get("properties")
    if not isinstance(members, dict):
        schema = {"type": "object"} | schema
    if form == "form" or not isinstance(members, dict):
        return schema, ()
    files = {name: made for name, part in members.items() if (made := _file(part))}
    return schema | {"properties": members | files}, tuple(files)


def _file(part: Json) -> Json | None:
    """Return the schema of a part that is a file or a list of files; None for other parts."""
    described = {"description": part["description"]} if "description" in part else {}
    items = part.get("items")
    if part.get("type") == "array" and isinstance(items, dict) and _is_file(items):
        return {"type": "array", "items": FILE} | described
    return FILE | described if _is_file(part) else None


def _is_file(part: Json) -> bool:
    return part.get("format") == "binary" or (
        "contentMediaType" in part and part.get("type", "string") == "string"
    )


def _encodings(encoding: Any) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    parts, joined = [], []
    for name, node in encoding.items() if isinstance(encoding, dict) else ():
        if not isinstance(node, dict):
            continue
        media = str(node.get("contentType", "")).partition(",")[0].strip()
        if MEDIA.fullmatch(media) and "*" not in media:
            parts.append((name, media))
        if node.get("explode") is False:
            joined.append(name)
    return tuple(parts), tuple(joined)
