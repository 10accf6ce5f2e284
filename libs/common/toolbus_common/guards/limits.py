"""Limits of the form of a document: size, depth, texts, links, and the tool's output schema."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import re2

LIMITS = ("max_bytes", "max_depth", "max_links", "max_texts")
SCHEMA = "output_schema"
OPTIONS = (*LIMITS, SCHEMA)

_LINK = re2.compile(r"(?i)\b(?:https?|ftp|wss?)://|\]\(//|\bsrc ?= ?[\"']//")

# Whether the JSON text of structured content fits the output schema of its tool.
Fits = Callable[[bytes], bool]


class _Structured(msgspec.Struct):
    """The member of a tool's result that its output schema describes."""

    structuredContent: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815 - the protocol's own name


_structured = msgspec.json.Decoder(_Structured).decode


def option_problems(options: Mapping[str, Any]) -> Iterator[str]:
    """Return what is wrong with the options of a guard of kind limits."""
    for name, value in options.items():
        if name not in OPTIONS:
            yield f"unknown option '{name}' of limits; use {', '.join(OPTIONS)}"
        elif name == SCHEMA and not isinstance(value, bool):
            yield f"option '{SCHEMA}' must be true or false"
        elif name in LIMITS and (
            isinstance(value, bool) or not isinstance(value, int) or value < 0
        ):
            yield f"option '{name}' must be a whole number of at least 0"
    if not options:
        yield f"limits needs at least one of the options {', '.join(OPTIONS)}"


def exceeded(
    options: Mapping[str, Any], body: bytes, output_schema: Fits | None = None
) -> tuple[str, ...]:
    """Return the names of the limits that a JSON document exceeds, in the order of `OPTIONS`.

    `output_schema` decides about the structured content of a result; None if the tool has no output
    schema. Absent or mismatched content exceeds the option `output_schema`.

    Raises:
        msgspec.DecodeError: the document is not JSON.

    """
    found = []
    if "max_bytes" in options and len(body) > options["max_bytes"]:
        # A larger document is not parsed.
        return ("max_bytes",)
    if any(name in options for name in LIMITS[1:]):
        depth, links, texts = _measures(body)
        measured = {"max_depth": depth, "max_links": links, "max_texts": texts}
        found += [name for name in LIMITS[1:] if name in options and measured[name] > options[name]]
    if options.get(SCHEMA) and output_schema is not None and not _fits(body, output_schema):
        found.append(SCHEMA)
    return tuple(found)


def _measures(body: bytes) -> tuple[int, int, int]:
    """Return the number of nested levels, of links, and of strings (names of members included)."""
    try:
        level: list[Any] = [msgspec.json.decode(body)] if body else []
    except RecursionError:
        return 1 << 30, 0, 0  # deeper than the parser permits
    depth = links = texts = 0
    while level:
        strings = [each for each in level if isinstance(each, str)]
        texts += len(strings)
        links += sum(_links(each) for each in strings)
        groups = [each for each in level if isinstance(each, dict | list)]
        depth += bool(groups)
        level = []
        for each in groups:
            if isinstance(each, dict):
                level += each.keys()
                level += each.values()
            else:
                level += each
    return depth, links, texts


def _links(text: str) -> int:
    if "//" not in text:
        return 0
    return sum(1 for _ in _LINK.finditer(text.encode("utf-8", "replace")))


def _fits(body: bytes, output_schema: Fits) -> bool:
    try:
        structured = bytes(_structured(body).structuredContent)
    except msgspec.ValidationError:
        return False  # the result is not an object
    return bool(structured) and output_schema(structured)
