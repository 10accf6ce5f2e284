"""Definitions of the tools of the built-in server."""

from typing import Any

from toolbus_common.contracts import CatalogEntry, Listing, ServerState
from toolbus_common.mcp.builtin_server import BUILT_IN, DOCS, EXECUTE, LIST, READ, SEARCH

_TEXT = {"type": "string"}

_DEFINITIONS: tuple[dict[str, Any], ...] = (
    {
        "name": LIST,
        "description": (
            "List the servers you can use, one file each; give server to list a server's tools. "
            "Then read a file's stubs with readToolFile and call the tools in a program with "
            "executeToolCode."
        ),
        "inputSchema": {"type": "object", "properties": {"server": _TEXT}},
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": READ,
        "description": (
            "Read the stubs of a server's tools (github.pyi) or of one tool "
            "(github/create_issue.pyi): signatures with types and a line of documentation. They "
            "are no files of a disk. startLine and endLine select from more than 100 lines."
        ),
        # Models fill in every declared parameter, so the range is only described.
        "inputSchema": {
            "type": "object",
            "properties": {"fileName": _TEXT},
            "required": ["fileName"],
        },
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": DOCS,
        "description": "Read one tool's whole documentation: parameters, output, an example.",
        "inputSchema": {
            "type": "object",
            "properties": {"server": _TEXT, "tool": _TEXT},
            "required": ["server", "tool"],
        },
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": SEARCH,
        "description": "Find tools by what they do. The best matches come first, as stubs that a "
        "program can call; limit is their number, 8 by default.",
        # Models fill in every declared parameter, and a limit of 1 hides the right tool.
        "inputSchema": {
            "type": "object",
            "properties": {"query": _TEXT},
            "required": ["query"],
        },
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": EXECUTE,
        "description": (
            "Run a program that calls tools: server.tool(name=value) returns plain values. A "
            "program has no files, network or packages of its own. Set result to the value to "
            "return; only it and printed text are returned. If a server "
            "github has the tools list_issues and get_issue, a program is:\n"
            'issues = github.list_issues(repo="a/b", limit=5)\n'
            'result = [github.get_issue(id=i["id"])["title"] for i in issues]\n'
            "Starlark "
            "(Python without import, while, try and classes) by default: parallel([lambda: …]) "
            "runs calls at once, try_call(server.tool, name=value) catches a failure. With "
            'language "python": await server.tool(…) and asyncio.gather.'
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "code": _TEXT,
                "language": {"enum": ["starlark", "python"], "default": "starlark"},
            },
            "required": ["code"],
        },
    },
)


def own_listing() -> Listing:
    """Return the catalogue entry of the built-in server."""
    tools = tuple(CatalogEntry(name=str(each["name"]), definition=each) for each in _DEFINITIONS)
    return Listing(server=BUILT_IN, state=ServerState.READY, family="modern", tools=tools)
