"""Read-only built-in tools: list files, read stubs, read documentation, search."""

from typing import Any

from toolbus_codemode.catalog.catalog import Catalogue
from toolbus_codemode.catalog.examples import example_lines, sampled
from toolbus_codemode.catalog.stub_tree import read, stub, tree
from toolbus_codemode.catalog.tool_docs import manual
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.errors import InvalidError
from toolbus_common.mcp.builtin_server import DOCS, LIST, READ, SEARCH

LONGEST_QUERY = 1000
MAX_FINDINGS, FOUND = 50, 8


async def answer(
    catalogue: Catalogue,
    bounds: EffectiveGrants,
    tool: str,
    arguments: dict[str, Any],
    *,
    plain: bool = False,
) -> str:
    """Return the text of a read-only tool's result. Raises `InvalidError` with a suggestion.

    With `plain`, the text contains the tool names for calls without a program.
    """
    namespace = catalogue.namespace(bounds)
    if tool == LIST:
        return tree(namespace, _text(arguments, "server", ""))
    if tool == READ:
        end = arguments.get("endLine")
        first = _number(arguments.get("startLine", 1), "startLine")
        return read(namespace, _text(arguments, "fileName"), first, end and _number(end, "endLine"))
    if tool == DOCS:
        return _manual(catalogue, bounds, arguments, plain=plain)
    if tool == SEARCH:
        return await _found(catalogue, bounds, arguments, plain=plain)
    raise InvalidError(f"There is no tool {tool}; list the tools again.")


def _manual(
    catalogue: Catalogue, bounds: EffectiveGrants, arguments: dict[str, Any], *, plain: bool
) -> str:
    namespace = catalogue.namespace(bounds)
    server, name = _text(arguments, "server"), _text(arguments, "tool")
    found = namespace.tool(server, name.removeprefix(f"{server}."))
    if found is None:
        near = ", ".join(namespace.near(server, name)) or "none; use searchTools"
        raise InvalidError(f"There is no tool {server}.{name}; the nearest are {near}.")
    return manual(found, plain=plain)


async def _found(
    catalogue: Catalogue, bounds: EffectiveGrants, arguments: dict[str, Any], *, plain: bool
) -> str:
    query = _text(arguments, "query")[:LONGEST_QUERY]
    maximum = min(MAX_FINDINGS, max(1, _number(arguments.get("limit", FOUND), "limit")))
    best = (await catalogue.index(bounds)).best(query, maximum)
    found = [tool for tool in best if tool.called or not plain]
    if not found:
        return "No tool matches; try other words" + ("." if plain else ", or listToolFiles.")
    lines = [stub(tool, tool.called if plain else tool.path) for tool in found]
    return "\n".join(lines if plain else [*lines, *example_lines(sampled(found), 2)])


def _text(arguments: dict[str, Any], name: str, default: str | None = None) -> str:
    found = arguments.get(name, default)
    if not isinstance(found, str):
        raise InvalidError(f"{name} is required and must be text.")
    return found


def _number(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError(f"{name} must be a whole number.")
    return value
