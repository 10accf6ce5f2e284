"""A tool as a signature: what a model must read to call it, in a line or two of Python."""

import json
from typing import Any

DEEPEST = 3  # levels of nested objects spelled out; deeper ones are `dict`
MOST_CHOICES = 8
MOST_PARAMETERS = 100
MOST_ALTERNATIVES = 8
MOST_NESTED = 24
MOST_PARTS = 400  # schemas looked into for one type: a server may send any number, at any depth
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
    """`name(title: str, labels: list[str] = None) -> {id: int}`; the required stand first."""
    return f"{name}({', '.join(parameters(schema))}){_returned(output)}"


def parameters(schema: Any) -> list[str]:
    """Each parameter with its type, and its default or None where it may be left out."""
    known, needed = properties(schema), required(schema)
    told = []
    for each in ordered(schema)[:MOST_PARAMETERS]:
        shown = f"{_plain(each)}: {type_of(known[each])}"
        told.append(shown if each in needed else f"{shown} = {_default(known[each])}")
    return told if len(known) <= MOST_PARAMETERS else [*told, "…"]


def ordered(schema: Any) -> list[str]:
    """The names of the parameters, the required ones first, each group in the schema's order."""
    known, needed = properties(schema), required(schema)
    return sorted(known, key=lambda each: each not in needed)


def type_of(schema: Any, deepest: int = DEEPEST) -> str:
    """A JSON Schema as a Python type, as far as it helps to write a call; bounded in any case."""
    return _cut(_Typing(deepest).of(schema), LONGEST_TYPE)


def _returned(output: Any) -> str:
    """` -> Type` where a schema says it: as much of it as fits on a line, outer levels first."""
    if not isinstance(output, dict):
        return ""
    shapes = (type_of(output, deepest) for deepest in range(DEEPEST, -1, -1))
    told = next((shape for shape in shapes if len(shape) <= LONGEST_RETURN), "Any")
    return "" if told == "Any" else f" -> {told}"


class _Typing:
    """One type, worked out of a schema that may be of any size."""

    def __init__(self, deepest: int) -> None:
        self.deepest = deepest
        self.left = MOST_PARTS

    def of(self, schema: Any, depth: int = 0, nested: int = 0) -> str:
        """The type at this depth of objects, in so many lists, dicts and alternatives."""
        self.left -= 1
        if not isinstance(schema, dict) or self.left < 0 or nested > MOST_NESTED:
            return "Any"
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(choices, list) and choices:
            return _literal(choices)
        alternatives = _alternatives(schema)
        if alternatives:
            told = [self.of(each, depth, nested + 1) for each in alternatives]
            return " | ".join(dict.fromkeys(told))
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
    """The schemas a value may be of, where there are several."""
    for union in ("anyOf", "oneOf"):
        if isinstance(schema.get(union), list):
            return list(schema[union][:MOST_ALTERNATIVES])
    kinds = schema.get("type")
    if not isinstance(kinds, list):
        return []
    named = dict.fromkeys(kind for kind in kinds if isinstance(kind, str))
    return [{**schema, "type": kind} for kind in named][:MOST_ALTERNATIVES]


def first_sentence(text: Any) -> str:
    """What a description says first, on one line, within bounds."""
    line = " ".join(str(text or "").split())
    sentence = line.split(". ")[0].rstrip(".")
    return _cut(sentence, LONGEST_LINE)


def _literal(choices: list[Any]) -> str:
    shown = [_said(each) for each in choices[:MOST_CHOICES]]
    more = ["…"] if len(choices) > MOST_CHOICES else []
    return " | ".join(shown + more)


def _default(schema: Any) -> str:
    default = schema.get("default") if isinstance(schema, dict) else None
    if isinstance(default, str):
        return _said(default)
    return "None" if isinstance(default, dict | list) else _cut(repr(default), LONGEST_LITERAL)


def _said(value: Any) -> str:
    """A value as JSON; of a long one the beginning."""
    shown = value[:LONGEST_LITERAL] if isinstance(value, str) else value
    try:
        return _cut(json.dumps(shown, ensure_ascii=False), LONGEST_LITERAL)
    except RecursionError:
        return "…"


def _plain(name: str) -> str:
    """A parameter's name on one line, within bounds."""
    return _cut(" ".join(name.split()), LONGEST_NAME)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def properties(schema: Any) -> dict[str, Any]:
    """The parameters of a schema, by name; none where it has no such thing."""
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def required(schema: Any) -> frozenset[str]:
    """The names of the parameters that must be given."""
    found = schema.get("required") if isinstance(schema, dict) else None
    return (
        frozenset(each for each in found if isinstance(each, str))
        if isinstance(found, list)
        else frozenset()
    )
