"""Signatures of tools in Python syntax, from which a model learns to call them."""

import json
from typing import Any

DEEPEST = 3  # maximum depth of nested objects; a deeper object is `dict`
MAX_CHOICES = 8
MAX_PARAMETERS = 100
MAX_ALTERNATIVES = 8
MAX_NESTED = 24
MAX_PARTS = 400  # subschemas visited for one type; a server may send any number at any depth
LONGEST_TYPE = 2_000
LONGEST_RETURN = 240
LONGEST_NAME = 64
LONGEST_LITERAL = 64
LONGEST_LINE = 120
_SIMPLE = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None",
    "array": "list", "object": "dict",
}  # fmt: skip


def signature(name: str, schema: Any, output: Any = None) -> str:
    """Return a signature such as `name(title: str, labels: list[str] = None) -> {id: int}`."""
    return f"{name}({', '.join(parameters(schema))}){_returned(output)}"


def parameters(schema: Any) -> list[str]:
    """Return each parameter with its type; an optional parameter has its default too."""
    known, needed = properties(schema), required(schema)
    listed = []
    for each in ordered(schema)[:MAX_PARAMETERS]:
        shown = f"{_plain(each)}: {type_of(known[each])}"
        listed.append(shown if each in needed else f"{shown} = {_default(known[each])}")
    return listed if len(known) <= MAX_PARAMETERS else [*listed, "…"]


def ordered(schema: Any) -> list[str]:
    """Return the parameter names: required, then optional, each in the order of the schema."""
    known, needed = properties(schema), required(schema)
    return sorted(known, key=lambda each: each not in needed)


def type_of(schema: Any, deepest: int = DEEPEST) -> str:
    """Return a JSON Schema as a Python-like type of limited length."""
    return _cut(_Typing(deepest).of(schema), LONGEST_TYPE)


def _returned(output: Any) -> str:
    """Return ` -> Type` with as many nested levels as fit, or an empty text without a type."""
    if not isinstance(output, dict):
        return ""
    shapes = (type_of(output, deepest) for deepest in range(DEEPEST, -1, -1))
    fitting = next((shape for shape in shapes if len(shape) <= LONGEST_RETURN), "Any")
    return "" if fitting == "Any" else f" -> {fitting}"


class _Typing:
    """Converter of one schema to a type; it visits at most `MAX_PARTS` subschemas."""

    def __init__(self, deepest: int) -> None:
        self.deepest = deepest
        self.left = MAX_PARTS

    def of(self, schema: Any, depth: int = 0, nested: int = 0) -> str:
        """Return the type of a subschema.

        `depth` is the number of enclosing objects, `nested` the number of all enclosing types.
        """
        self.left -= 1
        if not isinstance(schema, dict) or self.left < 0 or nested > MAX_NESTED:
            return "Any"
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(choices, list) and choices:
            return _literal(choices)
        alternatives = _alternatives(schema)
        if alternatives:
            types = [self.of(each, depth, nested + 1) for each in alternatives]
            return " | ".join(dict.fromkeys(types))
        kind = schema.get("type")
        if kind == "object" or "properties" in schema:
            return self._object(schema, depth, nested + 1)
        if kind == "array" and schema.get("items"):
            return f"list[{self.of(schema['items'], depth, nested + 1)}]"
        return _SIMPLE.get(str(kind), "Any")

    def _object(self, schema: dict[str, Any], depth: int, nested: int) -> str:
        known, needed = properties(schema), required(schema)
        if not known:
            values = schema.get("additionalProperties")
            if not isinstance(values, dict) or not values:
                return "dict"
            return f"dict[str, {self.of(values, depth, nested)}]"
        if depth >= self.deepest:
            return "dict"
        members = []
        for name, each in known.items():
            if self.left <= 0:
                members.append("…")
                break
            optional = "" if name in needed else "?"
            members.append(f"{_plain(name)}{optional}: {self.of(each, depth + 1, nested)}")
        return "{" + ", ".join(members) + "}"


def _alternatives(schema: dict[str, Any]) -> list[Any]:
    """Return the alternative schemas of a union, or an empty list for another schema."""
    for union in ("anyOf", "oneOf"):
        if isinstance(schema.get(union), list):
            return list(schema[union][:MAX_ALTERNATIVES])
    kinds = schema.get("type")
    if not isinstance(kinds, list):
        return []
    named = dict.fromkeys(kind for kind in kinds if isinstance(kind, str))
    return [{**schema, "type": kind} for kind in named][:MAX_ALTERNATIVES]


def summary_of(text: Any) -> str:
    """Return the first sentence of a description on one line, shortened."""
    line = " ".join(str(text or "").split())
    first = line.split(". ")[0].rstrip(".")
    return _cut(first, LONGEST_LINE)


def _literal(choices: list[Any]) -> str:
    shown = [_json_literal(each) for each in choices[:MAX_CHOICES]]
    more = ["…"] if len(choices) > MAX_CHOICES else []
    return " | ".join(shown + more)


def _default(schema: Any) -> str:
    default = schema.get("default") if isinstance(schema, dict) else None
    if isinstance(default, str):
        return _json_literal(default)
    return "None" if isinstance(default, dict | list) else _cut(repr(default), LONGEST_LITERAL)


def _json_literal(value: Any) -> str:
    """Encode a value as JSON, shortened."""
    shown = value[:LONGEST_LITERAL] if isinstance(value, str) else value
    try:
        return _cut(json.dumps(shown, ensure_ascii=False), LONGEST_LITERAL)
    except RecursionError:
        return "…"


def _plain(name: str) -> str:
    """Return a parameter's name on one line, shortened."""
    return _cut(" ".join(name.split()), LONGEST_NAME)


def _cut(text: str, maximum: int) -> str:
    return text if len(text) <= maximum else text[: maximum - 1] + "…"


def properties(schema: Any) -> dict[str, Any]:
    """Return the parameters of a schema by name, or an empty dict."""
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def required(schema: Any) -> frozenset[str]:
    """Return the names of the required parameters."""
    found = schema.get("required") if isinstance(schema, dict) else None
    return (
        frozenset(each for each in found if isinstance(each, str))
        if isinstance(found, list)
        else frozenset()
    )
