"""One operation as a tool: its definition, and how its arguments make a request."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from toolbus_common.crypto.canonical_json import digest_of
from toolbus_common.mcp.param_headers import TOKEN
from toolbus_common.openapi.bodies import Body, body_of
from toolbus_common.openapi.document import Document, DocumentError, Json
from toolbus_common.openapi.names import argument_names
from toolbus_common.openapi.schemas import Schemas, TooLargeError, loosened
from toolbus_common.openapi.security import Alternatives

BINDING = "toolbus/binding"  # in `_meta`: a pin then covers what is called, too
MOST_PARAMETERS = 200
# Depths, lengths of descriptions, and whether it is told what an answer looks like.
_ATTEMPTS = (
    (10, 1000, True), (4, 300, True), (2, 100, True), (2, 100, False), (1, 60, False),
    (1, 0, False), (0, 0, False),
)  # fmt: skip
_STYLES = {"path": "simple", "query": "form", "header": "simple", "cookie": "form"}
_ALLOWED = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
# What OpenAPI leaves to others, and what would change the request's frame or whose it is.
_NOT_OURS = frozenset(
    {
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
    }
)
_PAGES = re.compile(
    r"(?:page|page_?size|per_?page|limit|offset|cursor|after|starting_after|page_?token|next_?token)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """Where an argument goes, and how it is written there."""

    argument: str
    name: str
    place: str
    style: str
    explode: bool
    required: bool
    reserved: bool = False  # may hold characters that mean something in a query
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: the tool it is, and how it is called."""

    method: str
    path: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    security: Alternatives
    definition: Json

    @property
    def binding(self) -> str:
        """What changes whenever the same arguments would make another request."""
        return str(self.definition["_meta"][BINDING])


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one definition may hold, so that all of a document's fit a listing and are read soon."""

    size: int  # bytes
    parts: int  # of a schema


def bounds_for(count: int) -> Bounds:
    """The bounds where there are so many operations; in steps, so that definitions seldom move."""
    for most, size, parts in ((100, 48, 1_500), (500, 12, 400)):
        if count <= most:
            return Bounds(size * 1024, parts)
    return Bounds(5 * 1024, 150)


@dataclass(frozen=True, slots=True)
class OperationSource:
    """An operation as its document has it, with what its path says for all of them."""

    document: Document
    method: str
    path: str
    node: Json
    shared: Any  # the parameters of its path
    base: str
    security: Alternatives
    bounds: Bounds
    own: frozenset[tuple[str, str]]  # places and names (in lower case) credentials go to


def operation_of(asked: OperationSource, name: str) -> Operation:
    """The tool of an operation. Raises `DocumentError` with the reason it can be none."""
    _check_path(asked.path)
    told = _parameters(asked)
    for depth, longest, answers in _ATTEMPTS:
        with suppress(TooLargeError):
            made = _made(asked, name, told, depth, longest, answers=answers)
            if len(msgspec.json.encode(made.definition)) <= asked.bounds.size:
                return made
    raise DocumentError(f"its definition is larger than {asked.bounds.size >> 10} KiB")


def _made(
    asked: OperationSource, name: str, told: list[Json], depth: int, longest: int, *, answers: bool
) -> Operation:
    schemas = Schemas(asked.document, deepest=depth, longest=longest, parts=asked.bounds.parts)
    properties: Json = {}
    parameters = []
    called = argument_names((str(each["name"]), str(each["in"])) for each in told)
    for argument, node in zip(called, told, strict=True):
        parameters.append(_parameter(argument, node))
        properties[argument] = _argument(schemas, node)
    required = [each.argument for each in parameters if each.required]
    body, schema = body_of(asked.document, asked.node.get("requestBody"), schemas)
    if body is not None:
        properties["body"] = schema
        required += ["body"] if body.required else []
    definition: Json = {
        "name": name,
        "description": _description(asked, schemas, [each.name for each in parameters]),
        "inputSchema": {
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        },
        "annotations": _annotations(asked),
    }
    if answers:
        definition |= _output(asked, depth, longest)
    made = Operation(asked.method, asked.path, tuple(parameters), body, asked.security, definition)
    definition["_meta"] = {BINDING: _binding(made, asked.base)}
    return made


def _binding(made: Operation, base: str) -> str:
    told = [base, made.method, made.path, [asdict(each) for each in made.parameters]]
    body = asdict(made.body) if made.body else None
    return digest_of([*told, body, [list(each) for each in made.security]])[:16]


def _check_path(path: str) -> None:
    if not path.startswith("/") or path.startswith("//") or re.search(r"[?#\\\s\x00-\x1f]", path):
        raise DocumentError("its path is none that can be called")
    if any(step in (".", "..") for step in path.split("/")):
        raise DocumentError("its path leads out of the API")


def _parameters(asked: OperationSource) -> list[Json]:
    """Its own, and those of its path it does not replace."""
    found: dict[tuple[str, str], Json] = {}
    for each in (asked.shared, asked.node.get("parameters")):
        for node in each if isinstance(each, list) else ():
            told = asked.document.resolved(node)
            name, place = told.get("name"), told.get("in")
            if not isinstance(name, str) or place not in _STYLES:
                raise DocumentError("one of its parameters has no name or no place")
            found[str(place), name] = told
    if len(found) > MOST_PARAMETERS:
        raise DocumentError(f"it has more than {MOST_PARAMETERS} parameters")
    kept = [node for place, node in found.items() if _is_ours(place, asked.own)]
    holes = set(re.findall(r"\{([^{}]+)\}", asked.path))
    named = {str(node["name"]) for node in kept if node["in"] == "path"}
    if holes - named:
        raise DocumentError(f"no parameter fills {{{min(holes - named)[:64]}}} of its path")
    return [node for node in kept if node["in"] != "path" or node["name"] in holes]


def _is_ours(place: tuple[str, str], own: frozenset[tuple[str, str]]) -> bool:
    """Whether the caller may say it: not where it frames the request, or holds a credential."""
    where, name = place[0], place[1].lower()
    if where == "header" and (name in _NOT_OURS or not TOKEN.fullmatch(name)):
        return False
    return where == "path" or (where, name) not in own


def _parameter(argument: str, node: Json) -> Parameter:
    place = str(node["in"])
    style = node.get("style", _STYLES[place])
    if style not in _ALLOWED[place]:
        raise DocumentError(f"its parameter {str(node['name'])[:64]} has an unknown style")
    explode = node.get("explode", style in ("form", "deepObject"))
    return Parameter(
        argument,
        str(node["name"]),
        place,
        style,
        explode=explode is True,
        required=place == "path" or node.get("required") is True,
        reserved=node.get("allowReserved") is True,
        as_json=_media(node) is not None and "json" in str(_media(node)),
    )


def _media(node: Json) -> str | None:
    content = node.get("content")
    return next(iter(content), None) if isinstance(content, dict) and content else None


def _argument(schemas: Schemas, node: Json) -> Json:
    media = _media(node)
    inner = node["content"][media] if media is not None else node
    told = inner.get("schema", {}) if isinstance(inner, dict) else {}
    schema = schemas.translate(told)
    description = schemas.text(node.get("description"))
    if node.get("deprecated") is True:
        description = f"Deprecated. {description}".strip()
    return schema | ({"description": description} if description else {})


def _description(asked: OperationSource, schemas: Schemas, names: list[str]) -> str:
    told = [schemas.text(asked.node.get(each)) for each in ("summary", "description")]
    lines = list(dict.fromkeys(each for each in told if each))
    lines = lines or [f"{asked.method} {asked.path}"]
    if asked.node.get("deprecated") is True:
        lines.insert(0, "Deprecated.")
    pages = [name for name in names if _PAGES.fullmatch(name)]
    if asked.method == "GET" and pages:
        lines.append(f"Answers come in pages: see {', '.join(pages)}.")
    return "\n\n".join(lines)


def _annotations(asked: OperationSource) -> Json:
    summary = asked.node.get("summary")
    found: Json = {"title": summary[:120]} if isinstance(summary, str) and summary else {}
    found["readOnlyHint"] = asked.method in ("GET", "HEAD")
    if asked.method == "DELETE":
        found["destructiveHint"] = True
    if asked.method in ("PUT", "DELETE"):
        found["idempotentHint"] = True
    return found


def _output(asked: OperationSource, depth: int, longest: int) -> Json:
    """What an answer looks like, where it is one JSON object. Raises `TooLargeError`."""
    parts = asked.bounds.parts // 2
    schemas = Schemas(asked.document, answers=True, deepest=depth, longest=longest, parts=parts)
    try:
        schema = _answered(asked, schemas)
    except TooLargeError:
        raise
    except DocumentError:
        return {}  # what it answers with need not be known to call it
    if schema is None or schema.get("type") != "object":
        return {}
    return {"outputSchema": loosened(schema) | {"type": "object"}}


def _answered(asked: OperationSource, schemas: Schemas) -> Json | None:
    """The schema of the first success, else of what is said for every answer."""
    responses = asked.node.get("responses")
    if asked.method == "HEAD" or not isinstance(responses, dict):
        return None
    fine = sorted(each for each in responses if each.startswith("2"))
    for status in fine[:1] or [each for each in ("default",) if each in responses]:
        content = asked.document.resolved(responses[status]).get("content")
        return _json_schema(content, schemas)
    return None


def _json_schema(content: Any, schemas: Schemas) -> Json | None:
    for media, details in content.items() if isinstance(content, dict) else ():
        if "json" in media and isinstance(details, dict) and "schema" in details:
            return schemas.translate(details["schema"])
    return None
