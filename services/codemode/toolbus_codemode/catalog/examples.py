"""Sample calls of tools, with plausible values for required parameters."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from keyword import iskeyword
from typing import Any

from toolbus_codemode.catalog.namespace import Tool
from toolbus_codemode.catalog.signatures import ordered, properties, required

LONGEST_EXAMPLE = 160  # characters of a sample call in a list of tools
MAX_REQUIRED = 8  # required parameters of a tool in a list of tools
MAX_TRIED = 50  # tools inspected for one list


def example(tool: Tool) -> str:
    """Return a sample call with plausible values for required parameters."""
    samples = _samples(tool.schema)
    given = [f"{name}={_python(value)}" for name, value in samples.items() if _is_word(name)]
    others = {name: value for name, value in samples.items() if not _is_word(name)}
    call = f"{tool.path}({', '.join([*given, f'**{others!r}'] if others else given)})"
    return call + _member(tool.definition.get("outputSchema"))


def plain_example(tool: Tool) -> str:
    """Return a sample call without a program: the tool's name and arguments as JSON."""
    return f"{tool.called} {json.dumps(_samples(tool.schema), ensure_ascii=False)}"


def example_lines(tools: Iterable[Tool], maximum: int = 1) -> list[str]:
    """Return comment lines with short sample calls.

    Read-only tools come first, then tools with required parameters, because models copy the lines.
    """
    short = sorted(_short(islice(tools, MAX_TRIED)), key=lambda found: found[:2])
    return [f"# in a program: result = {call}" for *_, call in short[:maximum]]


def sampled(found: Sequence[Tool]) -> list[Tool]:
    """Return the best of the found tools and, if it may write, the best one that only reads."""
    best, *others = found
    reading = next((each for each in others if not may_write(each)), None)
    return [best] if reading is None or not may_write(best) else [best, reading]


def _short(tools: Iterable[Tool]) -> Iterator[tuple[bool, bool, str]]:
    """Return short calls, with whether the tool may write and whether it needs no arguments."""
    for tool in tools:
        needed = required(tool.schema)
        if len(needed) > MAX_REQUIRED:
            continue
        try:
            call = example(tool)
        except RecursionError:  # a sample value of the server is nested too deeply
            continue
        if len(call) <= LONGEST_EXAMPLE:
            yield may_write(tool), not needed, call


def _member(output: Any) -> str:
    """Return `["name"]` if the result is an object with one text or list, else an empty text.

    Models use such a result as the text or list itself, and an object has other methods.
    """
    known = properties(output)
    if len(known) != 1 or required(output) != set(known):
        return ""
    ((name, schema),) = known.items()
    kind = schema.get("type") if isinstance(schema, dict) else None
    return f"[{json.dumps(name)}]" if kind in ("string", "array") else ""


def may_write(tool: Tool) -> bool:
    """Return whether a tool is not marked as read-only by its server."""
    marks = tool.definition.get("annotations")
    return not (isinstance(marks, dict) and marks.get("readOnlyHint") is True)


def _samples(schema: Any) -> dict[str, Any]:
    known, needed = properties(schema), required(schema)
    return {name: _sample(known[name]) for name in ordered(schema) if name in needed}


def _sample(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return "…"
    for source in ("examples", "enum"):
        if isinstance(schema.get(source), list) and schema[source]:
            return schema[source][0]
    if "default" in schema:
        return schema["default"]
    samples = {"integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}
    return samples.get(str(schema.get("type")), "…")


def _python(value: Any) -> str:
    return repr(value) if not isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_word(name: str) -> bool:
    """Return whether a parameter can be written as `name=value` in both languages."""
    return name.isidentifier() and name.isascii() and not iskeyword(name)
