"""JSON Schema of one reply: a call of one tool, or the answer."""

import json
from typing import Any

LONGEST_TEXT = 400  # characters of an argument or an answer
LONGEST_PROGRAM = 1_500  # characters of an argument named `code`
MAX_ITEMS, MAX_DEPTH = 8, 4
_PLAIN = {"integer", "number", "boolean", "null"}


class ReplyError(ValueError):
    """The reply is not of the required form."""


def reply_schema(tools: list[dict[str, Any]], *, answers: bool) -> dict[str, Any]:
    """Return the schema of a reply: a call of these tools or, with `answers`, an answer.

    Its texts and lists are bounded.
    """
    calls = [
        _object({"tool": {"const": tool["name"]}, "arguments": _bounded(tool["inputSchema"])})
        for tool in tools
    ]
    return {"anyOf": [*calls, _object({"answer": _text(LONGEST_TEXT)})] if answers else calls}


def parsed(reply: str) -> tuple[str, dict[str, Any] | str]:
    """Return the tool and its arguments, or an empty text and the answer. Raises `ReplyError`."""
    try:
        value = json.loads(reply)
    except ValueError as error:
        raise ReplyError(f"The reply is no complete JSON: {error}.") from None
    if isinstance(value, dict):
        tool, arguments, answer = (value.get(name) for name in ("tool", "arguments", "answer"))
        if isinstance(answer, str):
            return "", answer
        if isinstance(tool, str) and isinstance(arguments, dict):
            return tool, arguments
    raise ReplyError("The reply has neither a tool with arguments nor an answer.")


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    needed = list(properties) if required is None else required
    fixed = {"required": needed, "additionalProperties": False}
    return {"type": "object", "properties": properties, **fixed}


def _text(longest: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": longest}


def _bounded(schema: Any, name: str = "", depth: int = 0) -> dict[str, Any]:
    """Return a simpler schema that accepts the same kinds of values, with limits of size."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        schema = {}
    if isinstance(schema.get("enum"), list):
        return {"enum": schema["enum"]}
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return {"anyOf": [_bounded(each, name, depth + 1) for each in alternatives]}
    kind = schema.get("type")
    if kind in _PLAIN:
        return {"type": kind}
    if kind == "array":
        items = _bounded(schema.get("items"), name, depth + 1)
        return {"type": "array", "items": items, "maxItems": MAX_ITEMS}
    if kind != "object" and "properties" not in schema:
        return _text(LONGEST_PROGRAM if name == "code" else LONGEST_TEXT)
    known = schema.get("properties") or {}
    members = {each: _bounded(known[each], each, depth + 1) for each in known}
    return _object(members, [each for each in schema.get("required", ()) if each in known])
