"""Parsing of a document into plain JSON data, and resolution of its references, within limits."""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, ClassVar
from urllib.parse import unquote

import msgspec
import yaml

LARGEST_JSON = 16 * 1024 * 1024  # bytes
LARGEST_YAML = 4 * 1024 * 1024  # YAML takes ten times as long to parse
MAX_VALUES = 400_000  # limits the growth by nested aliases
MAX_TEXT = 64 * 1024 * 1024
DEEPEST = 100
MAX_HOPS = 16  # of chained references

Json = dict[str, Any]


class DocumentError(ValueError):
    """A document, or a part of it, cannot be translated. The message contains the reason."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loader of YAML 1.2 with the types of JSON. Dates, times, `no` and `0123` remain texts."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)", "-+.0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)[eE][-+]?[0-9]+", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def read(text: bytes) -> Json:
    """Return the data of an OpenAPI 3 document in JSON or YAML. Raises `DocumentError`."""
    data = _from_json(text) if text.lstrip()[:1] == b"{" else _from_yaml(text)
    if not isinstance(data, dict):
        raise DocumentError("It is not an object; give an OpenAPI document.")
    version = data.get("openapi")
    if "swagger" in data and version is None:
        raise DocumentError("It is Swagger 2.0; convert it to OpenAPI 3 first.")
    if not isinstance(version, str) or not re.match(r"3\.[01]", version):
        raise DocumentError("It is not an OpenAPI document of version 3.0 or 3.1; give one.")
    if not isinstance(data.get("paths", {}), dict):
        raise DocumentError("Its 'paths' is not an object; correct it.")
    return data


def _from_json(text: bytes) -> Any:
    if len(text) > LARGEST_JSON:
        raise DocumentError(f"It is larger than {LARGEST_JSON >> 20} MiB; use a smaller document.")
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DocumentError(f"It is not JSON: {error}. Correct it.") from error


def _from_yaml(text: bytes) -> Any:
    if len(text) > LARGEST_YAML:
        raise DocumentError(f"It is larger than {LARGEST_YAML >> 20} MiB; provide it as JSON.")
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader with fewer types
        _check_bounds(data)
        return msgspec.json.decode(msgspec.json.encode(data))
    except (yaml.YAMLError, msgspec.DecodeError, RecursionError, ValueError, TypeError) as error:
        if isinstance(error, DocumentError):
            raise
        reason = str(error).partition("\n")[0][:200]
        raise DocumentError(f"It is neither JSON nor YAML: {reason}.") from error


def _check_bounds(data: Any) -> None:
    """Raise `DocumentError` if the document with expanded aliases would be too large."""
    waiting: list[tuple[Any, int]] = [(data, 0)]
    count = size = 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, float) and not isfinite(value):
            raise DocumentError(
                "It contains an infinite or undefined number, which JSON does not have; remove it."
            )
        elif isinstance(value, dict):
            waiting += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]
        if count + len(waiting) > MAX_VALUES or size > MAX_TEXT or depth > DEEPEST:
            raise DocumentError(
                "With its references resolved it is too large or too deeply nested; split the "
                "document."
            )


class Document:
    """The data of a document, with resolution of references."""

    def __init__(self, root: Json) -> None:
        self.root = root
        self._found: dict[str, Any] = {}

    def at(self, pointer: str) -> Any:
        """Return the target of a reference within this document. Raises `DocumentError`."""
        if pointer not in self._found:
            self._found[pointer] = self._look_up(pointer)
        return self._found[pointer]

    def _look_up(self, pointer: str) -> Any:
        if not pointer.startswith("#/"):
            raise DocumentError(f"It refers to another document ({pointer[:80]}); merge them.")
        value: Any = self.root
        for step in pointer[2:].split("/"):
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and name in value:
                value = value[name]
            elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                value = value[int(name)]
            else:
                raise DocumentError(
                    f"It refers to {pointer[:80]}, which does not exist; correct it."
                )
        return value

    def resolved(self, node: Any) -> Json:
        """Return an object after following its references. Raises `DocumentError`."""
        for _ in range(MAX_HOPS):
            if not isinstance(node, Mapping):
                raise DocumentError("A value that must be an object is not one; correct it.")
            pointer = node.get("$ref")
            if not isinstance(pointer, str):
                return dict(node)
            node = self.at(pointer)
        raise DocumentError("Its references are circular; correct them.")
