"""Tools of the gateway that are added to the `tools` of a model request (no I/O)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import msgspec

from toolbus_common.access.tool_names import LONGEST, shortened
from toolbus_common.config import InjectionLimits
from toolbus_common.errors import InvalidError
from toolbus_common.model_api.tool_forms import Form, definition_of

_BYTES_PER_TOKEN = 3  # as policy counts the tokens of a request
_SAFE = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST}}}")
_SHOWN = 128  # characters of a name in an error


DEFAULT_LIMITS = InjectionLimits()


@dataclass(frozen=True, slots=True)
class AddedTools:
    """Tools in the form of one API, encoded once.

    `entries` are the encoded entries of `tools` by safe name. `names` maps each safe name to the
    name of the tool.
    """

    form: Form
    entries: dict[str, bytes]
    names: dict[str, str]
    limits: InjectionLimits = DEFAULT_LIMITS
    encoded: bytes = field(init=False)  # the entries, separated by commas

    def __post_init__(self) -> None:
        """Join the entries."""
        object.__setattr__(self, "encoded", b",".join(self.entries.values()))

    @property
    def tokens(self) -> int:
        """The estimated number of tokens."""
        return ceil(len(self.encoded) / _BYTES_PER_TOKEN)


def added_tools(
    tools: Iterable[dict[str, Any]], form: Form, limits: InjectionLimits = DEFAULT_LIMITS
) -> AddedTools:
    """Return tools, as MCP lists them, in the form of an API, sorted by name.

    A name that an API does not accept is shortened and ends in a digest of the name, so that it is
    the same in every request and replica.

    Raises:
        InvalidError: the tools are too many or too large for `limits`.

    """
    entries: dict[str, bytes] = {}
    names: dict[str, str] = {}
    for tool in sorted(tools, key=lambda tool: str(tool["name"])):
        name = safe_name(tool["name"])
        entry = definition_of({**tool, "name": name}, form)
        _complete_schema(entry, form)
        if names.setdefault(name, tool["name"]) != tool["name"]:
            raise InvalidError(
                f"The tools '{names[name]}' and '{tool['name']}' have the same name "
                f"'{name}' for models. Rename one of them with 'alias'."
            )
        entries[name] = msgspec.json.encode(entry)
    added = AddedTools(form, entries, names, limits)
    _check(added, len(entries))
    return added


def safe_name(name: str) -> str:
    """Return the name of a tool as every API accepts it: `[A-Za-z0-9_-]{1,64}`."""
    return name if _SAFE.fullmatch(name) else shortened(name)


def add_tools(body: dict[str, Any], added: AddedTools) -> None:
    """Add tools to the parsed body of a request, after the client's own tools.

    A client's tool with the same name and the same definition as an added tool is not repeated.

    Raises:
        InvalidError: a client's tool has the name of an added tool, or all tools together are too
            many.

    """
    if not added.entries:
        return
    own = body.get("tools")
    if own is None:
        own = []
    if not isinstance(own, list):
        raise InvalidError("The field 'tools' is not valid: it must be a list of tools.")
    missing = _missing(own, added)
    body["tools"] = [*own, *(msgspec.json.decode(added.entries[name]) for name in missing)]


def with_tools(body: bytes, own: bytes | None, added: AddedTools) -> tuple[bytes, int]:
    """Return the encoded body of a request with the added tools, and the number of all tools.

    `body` is a valid JSON object. `own` is its member `tools`, `b""` for an empty one, or None if
    the body has no such member: then only the bytes of the tools are inserted.

    Raises:
        InvalidError: like `add_tools`.

    """
    if not added.entries:
        return body, len(msgspec.json.decode(own) or ()) if own else 0
    if own is None:
        start = body.index(b"{") + 1
        return b'%b"tools":[%b],%b' % (body[:start], added.encoded, body[start:]), len(
            added.entries
        )
    parts = msgspec.json.decode(own, type=list[msgspec.Raw] | None) if own else None
    tools = list(parts or ())
    missing = _missing([msgspec.json.decode(each) for each in tools], added)
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    whole = b",".join([*map(bytes, tools), *(added.entries[name] for name in missing)])
    members["tools"] = msgspec.Raw(b"[%b]" % whole)
    return msgspec.json.encode(members), len(tools) + len(missing)


def _missing(own: list[Any], added: AddedTools) -> list[str]:
    """Return the names of the added tools that are not among a client's own tools."""
    named = {_name_of(tool): tool for tool in own}
    missing = []
    for name, entry in added.entries.items():
        if name not in named:
            missing.append(name)
        elif named[name] != msgspec.json.decode(entry):
            raise InvalidError(
                f"The request has a tool of its own with the name '{name[:_SHOWN]}', which Toolbus "
                "adds too. Rename it, or send 'x-toolbus-inject: none' to add no tools."
            )
    _check(added, len(own) + len(missing))
    return missing


def _name_of(tool: Any) -> str:
    """Return the name of an entry of `tools`; empty if it has none."""
    if not isinstance(tool, dict):
        return ""
    for inner in (tool, tool.get("function"), tool.get("custom")):
        name = inner.get("name") if isinstance(inner, dict) else None
        if isinstance(name, str):
            return name
    return ""


def _complete_schema(entry: dict[str, Any], form: Form) -> None:
    """Add `properties` to the schema of a tool without arguments: OpenAI's API requires it."""
    function = entry["function"] if form is Form.CHAT else entry
    member = "input_schema" if form is Form.MESSAGES else "parameters"
    schema = function[member]
    if isinstance(schema, dict) and schema.get("type") == "object" and "properties" not in schema:
        function[member] = {**schema, "properties": {}}


def _check(added: AddedTools, count: int) -> None:
    limits = added.limits
    advice = (
        "Restrict the tools with 'x-toolbus-tools', or use 'x-toolbus-inject: code' or "
        "'x-toolbus-inject: search', which add at most five tools."
    )
    if count > limits.tools:
        raise InvalidError(
            f"The request would have {count} tools, and at most {limits.tools} are allowed. "
            f"{advice}"
        )
    if added.tokens > limits.tokens:
        raise InvalidError(
            f"The added tools have about {added.tokens} tokens, and at most {limits.tokens} are "
            f"allowed. {advice}"
        )
