"""A tool as a signature: what a model must read to call it, in a line or two of Python."""

import json
from typing import Any

DEEPEST = 3  # levels of nested objects spelled out; deeper ones are `dict`
MOST_CHOICES = 8
LONGEST_LINE = 120
_SIMPLE = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None",
    "array": "list", "object": "dict",
}  # fmt: skip


def signature(name: str, schema: Any) -> str:
    """`name(title: str, labels: list[str] = None)`; what is required stands first."""
    return f"{name}({', '.join(parameters(schema))})"


def parameters(schema: Any) -> list[str]:
    """Each parameter with its type, and its default or None where it may be left out."""
    known = properties(schema)
    names = ordered(schema)
    told = []
    for each in names:
        shown = f"{each}: {type_of(known[each])}"
        told.append(shown if each in required(schema) else f"{shown} = {_default(known[each])}")
    return told


def ordered(schema: Any) -> list[str]:
    """The names of the parameters, the required ones first, each group in the schema's order."""
    known, needed = properties(schema), required(schema)
    return sorted(known, key=lambda each: each not in needed)


def type_of(schema: Any, depth: int = 0) -> str:
    """A JSON Schema as a Python type, as far as it helps to write a call."""
    if not isinstance(schema, dict):
        return "Any"
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(choices, list) and choices:
        return _literal(choices)
    alternatives = _alternatives(schema)
    if alternatives:
        return " | ".join(dict.fromkeys(type_of(each, depth) for each in alternatives))
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return _object(schema, depth)
    if kind == "array" and schema.get("items"):
        return f"list[{type_of(schema['items'], depth)}]"
    return _SIMPLE.get(str(kind), "Any")


def _alternatives(schema: dict[str, Any]) -> list[Any]:
    """The schemas a value may be of, where there are several."""
    for union in ("anyOf", "oneOf"):
        if isinstance(schema.get(union), list):
            return list(schema[union])
    kinds = schema.get("type")
    return [{**schema, "type": kind} for kind in kinds] if isinstance(kinds, list) else []


def first_sentence(text: Any) -> str:
    """What a description says first, on one line, within bounds."""
    line = " ".join(str(text or "").split())
    sentence = line.split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= LONGEST_LINE else sentence[: LONGEST_LINE - 1] + "…"


def _object(schema: dict[str, Any], depth: int) -> str:
    known, needed = properties(schema), required(schema)
    if not known:
        values = schema.get("additionalProperties")
        return (
            f"dict[str, {type_of(values, depth)}]"
            if isinstance(values, dict) and values
            else "dict"
        )
    if depth >= DEEPEST:
        return "dict"
    members = [
        f"{name}{'' if name in needed else '?'}: {type_of(each, depth + 1)}"
        for name, each in known.items()
    ]
    return "{" + ", ".join(members) + "}"


def _literal(choices: list[Any]) -> str:
    shown = [json.dumps(each, ensure_ascii=False) for each in choices[:MOST_CHOICES]]
    more = ["…"] if len(choices) > MOST_CHOICES else []
    return " | ".join(shown + more)


def _default(schema: Any) -> str:
    default = schema.get("default") if isinstance(schema, dict) else None
    if isinstance(default, str):
        return json.dumps(default, ensure_ascii=False)
    return "None" if isinstance(default, dict | list) else repr(default)


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
