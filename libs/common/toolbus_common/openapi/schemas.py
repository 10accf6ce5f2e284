"""Translation of OpenAPI 3.0 and 3.1 schemas to JSON Schema without references, within limits."""

from collections.abc import Callable
from typing import Any

from toolbus_common.openapi.document import Document, DocumentError, Json

MAX_PARTS = 1_500  # parts of a schema with its references resolved
LONGEST_PATTERN = 500
_NUMBERS = (
    "minimum", "maximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties",
)  # fmt: skip
_WORDS = ("format", "contentEncoding", "contentMediaType")
_ANY = ("const", "default")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_PLAIN = frozenset({"type", "properties", "required", "description"})  # keywords that can be merged
_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
_HIDDEN = {False: "readOnly", True: "writeOnly"}  # omitted from requests (False), responses (True)


class TooLargeError(DocumentError):
    """A schema has more parts than the limit."""


class Schemas:
    """Translator of schemas of one document.

    It limits the depth (`deepest`), the length of descriptions (`longest`) and the number of parts
    of all schemas. `answers` is set for schemas of responses.
    """

    def __init__(
        self,
        document: Document,
        *,
        answers: bool = False,
        deepest: int = 10,
        longest: int = 1000,
        parts: int = MAX_PARTS,
    ) -> None:
        self._document = document
        self._hidden = _HIDDEN[answers]
        self._deepest = deepest
        self._longest = longest
        self._left = parts

    def translate(self, node: Any, ancestors: tuple[str, ...] = (), depth: int = 0) -> Json:
        """Return the translation of a schema. `ancestors` are the references that led to it.

        Parts that are recursive or too deep allow any value of their type.

        Raises:
            DocumentError: a reference has no target, or leads to another document.
            TooLargeError: the schema has too many parts. A smaller depth can succeed.

        """
        if not isinstance(node, dict):
            return {"not": {}} if node is False else {}
        self._left -= 1
        pointer = node.get("$ref")
        if isinstance(pointer, str):
            return self._resolve(node, pointer, ancestors, depth)
        if self._left < 0:
            raise TooLargeError("its schemas have too many parts")
        if depth > self._deepest:
            return self._outline(node)
        return self._whole(node, lambda inner: self.translate(inner, ancestors, depth + 1))

    def text(self, value: Any) -> str:
        """Return a description, truncated to the limit; empty if the value is not a string."""
        text = value.strip() if isinstance(value, str) else ""
        if len(text) <= self._longest:
            return text
        return f"{text[: self._longest - 1]}…" if self._longest else ""

    def _resolve(self, node: Json, pointer: str, ancestors: tuple[str, ...], depth: int) -> Json:
        target = self._document.at(pointer)
        if pointer in ancestors:
            return self._outline(target) if isinstance(target, dict) else {}
        if not isinstance(target, dict):
            return self.translate(target, ancestors, depth)
        siblings = {name: value for name, value in node.items() if name != "$ref"}
        return self.translate({**target, **siblings}, (*ancestors, pointer), depth)

    def _outline(self, node: Json) -> Json:
        found = _typed(node)
        if description := self.text(node.get("description")):
            found["description"] = description
        return found

    def _whole(self, node: Json, inner: Callable[[Any], Json]) -> Json:
        found = self._outline(node)
        found |= _constraints(node)
        self._add_members(found, node, inner)
        if isinstance(node.get("items"), dict | bool):
            found["items"] = inner(node["items"])
        if isinstance(node.get("not"), dict):
            found["not"] = inner(node["not"])
        for name in _LISTS:
            if isinstance(node.get(name), list) and node[name]:
                found[name] = [inner(part) for part in node[name]]
        return _nullable(node, merged(found))

    def _add_members(self, found: Json, node: Json, inner: Callable[[Any], Json]) -> None:
        properties = node.get("properties")
        if isinstance(properties, dict):
            hidden = {name for name, part in properties.items() if self._is_hidden(part)}
            found["properties"] = {
                name: inner(part) for name, part in properties.items() if name not in hidden
            }
            found.setdefault("type", "object")
        else:
            hidden = set()
        required = node.get("required")
        if isinstance(required, list):
            visible = [each for each in required if isinstance(each, str) and each not in hidden]
            found |= {"required": visible} if visible else {}
        more = node.get("additionalProperties")
        if isinstance(more, dict | bool):
            found["additionalProperties"] = inner(more) if isinstance(more, dict) else more

    def _is_hidden(self, part: Any) -> bool:
        return isinstance(part, dict) and part.get(self._hidden) is True


def merged(schema: Json) -> Json:
    """Return the schema with its `allOf` merged into one object.

    The schema is returned unchanged if not all parts are plain objects.
    """
    parts = schema.get("allOf")
    if not isinstance(parts, list):
        return schema
    if len(parts) == 1:
        return {**parts[0], **{name: each for name, each in schema.items() if name != "allOf"}}
    own = {name: each for name, each in schema.items() if name != "allOf"}
    every = [*parts, own]
    if not all(set(each) <= _PLAIN and each.get("type", "object") == "object" for each in every):
        return schema
    properties: Json = {}
    required: dict[str, None] = {}
    for each in every:
        properties |= each.get("properties", {})
        required |= dict.fromkeys(each.get("required", ()))
    made: Json = {"type": "object", "properties": properties}
    if required:
        made["required"] = list(required)
    described = [each["description"] for each in reversed(every) if "description" in each]
    return made | ({"description": described[0]} if described else {})


def loosened(schema: Json) -> Json:
    """Return a response schema with types and names only, without constraints.

    Clients reject a result that does not match its schema. Documents are often wrong about
    required, additional, enumerated or nullable values.
    """
    found: Json = {}
    if "description" in schema:
        found["description"] = schema["description"]
    kind = schema.get("type")
    if kind:
        types = list(kind) if isinstance(kind, list) else [kind]
        types = ["number" if each == "integer" else each for each in types]
        found["type"] = list(dict.fromkeys([*types, "null"]))
    if isinstance(schema.get("properties"), dict):
        parts = schema["properties"].items()
        found["properties"] = {name: loosened(part) for name, part in parts}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            found[name] = loosened(schema[name])
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if choices:
        found["anyOf"] = [loosened(part) for part in choices]
    return found


def _typed(node: Json) -> Json:
    kind = node.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    types = [each for each in kinds if isinstance(each, str) and each in _TYPES]
    if node.get("nullable") is True and types and "null" not in types:
        types.append("null")
    return {"type": types[0] if len(types) == 1 else types} if types else {}


def _constraints(node: Json) -> Json:
    """Return the constraints of a value. Unknown keywords are omitted."""
    found = {name: node[name] for name in _NUMBERS if _is_number(node.get(name))}
    found |= {name: node[name] for name in _WORDS if isinstance(node.get(name), str)}
    found |= {name: node[name] for name in _ANY if name in node}
    if isinstance(node.get("enum"), list) and node["enum"]:
        found["enum"] = node["enum"]
    if node.get("uniqueItems") is True:
        found["uniqueItems"] = True
    pattern = node.get("pattern")
    if isinstance(pattern, str) and len(pattern) <= LONGEST_PATTERN:
        found["pattern"] = pattern
    return found | _limits(node)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _limits(node: Json) -> Json:
    """Return the exclusive limits. In OpenAPI 3.0 they are booleans beside an inclusive limit."""
    found: Json = {}
    for name, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        limit = node.get(name)
        if limit is True and bound in node:
            found[name] = node[bound]
        elif _is_number(limit):
            found[name] = limit
    return found


def _nullable(node: Json, found: Json) -> Json:
    """Return the schema with `nullable` of OpenAPI 3.0 applied."""
    if node.get("nullable") is not True:
        return found
    if "enum" in found and None not in found["enum"]:
        found["enum"] = [*found["enum"], None]
    if any(name in found for name in _LISTS):
        return {"anyOf": [found, {"type": "null"}]}
    kind = found.get("type", [])
    types = kind if isinstance(kind, list) else [kind]
    return found | {"type": [*types, "null"]} if types and "null" not in types else found
