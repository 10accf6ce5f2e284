"""Translation of one operation: a tool definition, and the form of its request."""

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

BINDING = "toolbus/binding"  # a member of `_meta`, so that a pin covers the request too
MAX_PARAMETERS = 200
# Limits of one attempt: the depth of schemas, the length of descriptions, and whether there is an
# output schema.
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
# Headers that OpenAPI excludes from parameters, and headers that frame or authenticate a request.
_RESERVED_HEADERS = frozenset(
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
    """A parameter of the request: the argument that sets it, its position and its encoding.

    `place` is `path`, `query`, `header` or `cookie`.
    """

    argument: str
    name: str
    place: str
    style: str
    explode: bool
    required: bool
    reserved: bool = False  # the value may contain reserved characters of a query
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, as a tool definition and the description of its request."""

    method: str
    path: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    security: Alternatives
    definition: Json

    @property
    def binding(self) -> str:
        """A digest of the request's form.

        It changes if the same arguments would make another request.
        """
        return str(self.definition["_meta"][BINDING])


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one definition. With them, all definitions of a document fit into one list."""

    size: int  # bytes of the definition
    parts: int  # parts of a schema


def bounds_for(count: int) -> Bounds:
    """Return the limits of each definition for this number of operations.

    The limits change in steps, so that a new operation rarely changes other definitions.
    """
    for maximum, size, parts in ((100, 48, 1_500), (500, 12, 400)):
        if count <= maximum:
            return Bounds(size * 1024, parts)
    return Bounds(5 * 1024, 150)


@dataclass(frozen=True, slots=True)
class OperationSource:
    """An operation in its document, with the parameters that all operations of its path share."""

    document: Document
    method: str
    path: str
    node: Json
    shared: Any  # the parameters of the path
    base: str
    security: Alternatives
    bounds: Bounds
    own: frozenset[tuple[str, str]]  # location and lower-case name of parameters that Toolbus sets


def operation_of(source: OperationSource, name: str) -> Operation:
    """Return the translated operation.

    Raises `DocumentError` if the operation cannot be a tool. The message contains the reason.
    """
    _check_path(source.path)
    nodes = _parameters(source)
    for depth, longest, answers in _ATTEMPTS:
        with suppress(TooLargeError):
            operation = _translated(source, name, nodes, depth, longest, answers=answers)
            if len(msgspec.json.encode(operation.definition)) <= source.bounds.size:
                return operation
    raise DocumentError(f"its definition is larger than {source.bounds.size >> 10} KiB")


def _translated(
    source: OperationSource,
    name: str,
    nodes: list[Json],
    depth: int,
    longest: int,
    *,
    answers: bool,
) -> Operation:
    schemas = Schemas(source.document, deepest=depth, longest=longest, parts=source.bounds.parts)
    properties: Json = {}
    parameters = []
    arguments = argument_names((str(each["name"]), str(each["in"])) for each in nodes)
    for argument, node in zip(arguments, nodes, strict=True):
        parameters.append(_parameter(argument, node))
        properties[argument] = _argument(schemas, node)
    required = [each.argument for each in parameters if each.required]
    body, schema = body_of(source.document, source.node.get("requestBody"), schemas)
    if body is not None:
        properties["body"] = schema
        required += ["body"] if body.required else []
    definition: Json = {
        "name": name,
        "description": _description(source, schemas, [each.name for each in parameters]),
        "inputSchema": {
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        },
        "annotations": _annotations(source),
    }
    if answers:
        definition |= _output(source, depth, longest)
    operation = Operation(
        source.method, source.path, tuple(parameters), body, source.security, definition
    )
    definition["_meta"] = {BINDING: _binding(operation, source.base)}
    return operation


def _binding(operation: Operation, base: str) -> str:
    parts = [
        base,
        operation.method,
        operation.path,
        [asdict(each) for each in operation.parameters],
    ]
    body = asdict(operation.body) if operation.body else None
    return digest_of([*parts, body, [list(each) for each in operation.security]])[:16]


def _check_path(path: str) -> None:
    if not path.startswith("/") or path.startswith("//") or re.search(r"[?#\\\s\x00-\x1f]", path):
        raise DocumentError("its path is not a valid URL path")
    if any(step in (".", "..") for step in path.split("/")):
        raise DocumentError("its path contains a '.' or '..' segment")


def _parameters(source: OperationSource) -> list[Json]:
    """Return the parameters that the caller can set, of the operation and of its path.

    A parameter of the operation replaces the path's parameter with the same name and location.
    """
    found: dict[tuple[str, str], Json] = {}
    for each in (source.shared, source.node.get("parameters")):
        for node in each if isinstance(each, list) else ():
            resolved = source.document.resolved(node)
            name, place = resolved.get("name"), resolved.get("in")
            if not isinstance(name, str) or place not in _STYLES:
                raise DocumentError("one of its parameters has no name or no location")
            found[str(place), name] = resolved
    if len(found) > MAX_PARAMETERS:
        raise DocumentError(f"it has more than {MAX_PARAMETERS} parameters")
    kept = [node for place, node in found.items() if _is_settable(place, source.own)]
    placeholders = set(re.findall(r"\{([^{}]+)\}", source.path))
    named = {str(node["name"]) for node in kept if node["in"] == "path"}
    if placeholders - named:
        raise DocumentError(
            f"no parameter exists for {{{min(placeholders - named)[:64]}}} of its path"
        )
    return [node for node in kept if node["in"] != "path" or node["name"] in placeholders]


def _is_settable(location: tuple[str, str], own: frozenset[tuple[str, str]]) -> bool:
    """Return whether a caller can set a parameter.

    Headers that frame or authenticate a request, and parameters that Toolbus sets, are not
    settable.
    """
    where, name = location[0], location[1].lower()
    if where == "header" and (name in _RESERVED_HEADERS or not TOKEN.fullmatch(name)):
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
    schema_node = inner.get("schema", {}) if isinstance(inner, dict) else {}
    schema = schemas.translate(schema_node)
    description = schemas.text(node.get("description"))
    if node.get("deprecated") is True:
        description = f"Deprecated. {description}".strip()
    return schema | ({"description": description} if description else {})


def _description(source: OperationSource, schemas: Schemas, names: list[str]) -> str:
    texts = [schemas.text(source.node.get(each)) for each in ("summary", "description")]
    lines = list(dict.fromkeys(each for each in texts if each))
    lines = lines or [f"{source.method} {source.path}"]
    if source.node.get("deprecated") is True:
        lines.insert(0, "Deprecated.")
    pages = [name for name in names if _PAGES.fullmatch(name)]
    if source.method == "GET" and pages:
        lines.append(f"Results are paginated; see {', '.join(pages)}.")
    return "\n\n".join(lines)


def _annotations(source: OperationSource) -> Json:
    summary = source.node.get("summary")
    found: Json = {"title": summary[:120]} if isinstance(summary, str) and summary else {}
    found["readOnlyHint"] = source.method in ("GET", "HEAD")
    if source.method == "DELETE":
        found["destructiveHint"] = True
    if source.method in ("PUT", "DELETE"):
        found["idempotentHint"] = True
    return found


def _output(source: OperationSource, depth: int, longest: int) -> Json:
    """Return the member `outputSchema`; empty if the response is not a single JSON object.

    Raises `TooLargeError`.
    """
    parts = source.bounds.parts // 2
    schemas = Schemas(source.document, answers=True, deepest=depth, longest=longest, parts=parts)
    try:
        schema = _response_schema(source, schemas)
    except TooLargeError:
        raise
    except DocumentError:
        return {}  # the operation can be called without it
    if schema is None or schema.get("type") != "object":
        return {}
    return {"outputSchema": loosened(schema) | {"type": "object"}}


def _response_schema(source: OperationSource, schemas: Schemas) -> Json | None:
    """Return the JSON schema of the first success response, or of the default response."""
    responses = source.node.get("responses")
    if source.method == "HEAD" or not isinstance(responses, dict):
        return None
    fine = sorted(each for each in responses if each.startswith("2"))
    for status in fine[:1] or [each for each in ("default",) if each in responses]:
        content = source.document.resolved(responses[status]).get("content")
        return _json_schema(content, schemas)
    return None


def _json_schema(content: Any, schemas: Schemas) -> Json | None:
    for media, details in content.items() if isinstance(content, dict) else ():
        if "json" in media and isinstance(details, dict) and "schema" in details:
            return schemas.translate(details["schema"])
    return None
