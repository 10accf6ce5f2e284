"""Errors for files that are no stubs, with the tool that the caller probably needs."""

import json
from difflib import get_close_matches

from toolbus_codemode.catalog.namespace import ToolNamespace
from toolbus_codemode.catalog.signatures import ordered
from toolbus_codemode.sandbox.file_tools import LISTER, READER, file_tool

MAX_SERVERS = 20  # servers named in an error
LONGEST_PATH = 200  # characters of a path that an error repeats
_STUBS = "These files are stubs of tools, not files of a disk or of a server."


def missing_stub(namespace: ToolNamespace, name: str, *, listing: bool = False) -> str:
    """Return the error for a stub file that does not exist. `listing` means a list of tools."""
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
    """Return the error for a file that names no tool of the existing server `space`."""
    near = [] if "/" in function else namespace.near(space, function[:LONGEST_PATH])
    if near:
        return f"There is no {_quoted(name)}; the nearest tools are {', '.join(near)}."
    return f"There is no {_quoted(name)}. {_not_a_stub(namespace, name)}"


def _not_a_stub(namespace: ToolNamespace, path: str, *, listing: bool = False) -> str:
    """Return what stub files are, and a call of a granted tool that accesses the path."""
    candidates = ((tool.function, ordered(tool.schema), tool) for tool in namespace.tools())
    found = file_tool(candidates, LISTER if listing else READER)
    if found is None:
        return _STUBS
    tool, parameter = found
    what = "list a directory" if listing else "read a file"
    call = f"{tool.path}({parameter}={_quoted(path)})"
    return f"{_STUBS} To {what}, call {call} in a program with executeToolCode."


def _quoted(path: str) -> str:
    """Return a path in quotes, shortened."""
    shown = path if len(path) <= LONGEST_PATH else path[:LONGEST_PATH] + "…"
    return json.dumps(shown, ensure_ascii=False)
