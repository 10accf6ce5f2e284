"""Errors for files that are no stubs, with the tool that the caller probably needs."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from operator import itemgetter

from toolbus_codemode.catalog.namespace import Tool, ToolNamespace
from toolbus_codemode.catalog.signatures import ordered

MAX_SERVERS = 20  # servers named in an error
MAX_TRIED = 2_000  # tools inspected for one error
LONGEST_PATH = 200  # characters of a path that an error repeats
LONGEST_NAME = 64  # characters of a tool name that are inspected
_STUBS = "These files are stubs of tools, not files of a disk or of a server."
_READER = re.compile(r"(?:^|_)(?:read|get|open|cat|load|view)_?(?:\w*_)?(?:file|document)(?:_|$)")
_LISTER = re.compile(r"(?:^|_)(?:list|ls|read|get)_?(?:\w*_)?(?:directory|dir|folder|files)(?:_|$)")
_OTHER = re.compile(r"(?:^|_)(?:write|edit|delete|remove|move|upload|create|info|metadata)(?:_|$)")
_PLAIN = re.compile(r"text|^(?:read|get|list)_?(?:file|directory|files|dir)$")
_PATHS = ("path", "file_path", "filepath", "filename", "file", "directory", "uri")


def missing_stub(namespace: ToolNamespace, name: str, *, listing: bool = False) -> str:
    """Return the error for a file of no server; `listing` is set for a list of its tools."""
    wanted = name.removeprefix("servers/").removesuffix(".pyi").strip("/").partition("/")[0]
    close = get_close_matches(wanted[:LONGEST_PATH], namespace.spaces, n=1)
    known = list(namespace.spaces)
    more = f" and {len(known) - MAX_SERVERS} more" if len(known) > MAX_SERVERS else ""
    missing = f"There is no {_quoted(name)}; the servers are "
    missing += f"{', '.join(known[:MAX_SERVERS]) or 'none'}{more}."
    if close:
        return f"{missing} Did you mean {close[0]}.pyi?"
    return f"{missing} {_not_a_stub(namespace, name, listing=listing)}"


def missing_tool(namespace: ToolNamespace, name: str, space: str, function: str) -> str:
    """Return the error for a file of no tool, although its server `space` exists."""
    near = [] if "/" in function else namespace.near(space, function[:LONGEST_PATH])
    if near:
        return f"There is no {_quoted(name)}; the nearest tools are {', '.join(near)}."
    return f"There is no {_quoted(name)}. {_not_a_stub(namespace, name)}"


def _not_a_stub(namespace: ToolNamespace, path: str, *, listing: bool = False) -> str:
    """Say what stubs are, and call a granted tool that reads files or lists directories."""
    tool = _file_tool(namespace.tools(), _LISTER if listing else _READER)
    if tool is None:
        return _STUBS
    parameter = next(each for each in ordered(tool.schema) if each in _PATHS)
    what = "list a directory" if listing else "read a file"
    call = f"{tool.path}({parameter}={_quoted(path)})"
    return f"{_STUBS} To {what}, call {call} in a program with executeToolCode."


def _file_tool(tools: Iterable[Tool], names: re.Pattern[str]) -> Tool | None:
    """Return a tool with such a name and a parameter for a path; text files come first."""
    found = []
    for tool in islice(tools, MAX_TRIED):
        name = tool.function[:LONGEST_NAME].lower()
        if names.search(name) and not _OTHER.search(name) and {*ordered(tool.schema)} & {*_PATHS}:
            found.append((not _PLAIN.search(name), tool))
    return min(found, key=itemgetter(0))[1] if found else None


def _quoted(path: str) -> str:
    """Return a path in quotes, shortened."""
    shown = path if len(path) <= LONGEST_PATH else path[:LONGEST_PATH] + "…"
    return json.dumps(shown, ensure_ascii=False)
